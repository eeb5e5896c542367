import torch

import dilated_attention_pytorch as ida
import dilated_attention_pytorch as rda

ring = rda.RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2])
plain = ida.ImprovedDilatedAttention([16, 32], [1, 2], 0.0)
x = torch.randn(1, 32, 4, 8)
torch.testing.assert_close(ring(x, x, x), plain(x, x, x))
