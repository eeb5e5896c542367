import torch

import dilated_attention_pytorch.improved_dilated_attention as ida
import dilated_attention_pytorch.ring_dilated_attention as rda

ring = rda.RingDilatedAttention([16, 32], [1, 2])
plain = ida.ImprovedDilatedAttention([16, 32], [1, 2], 0.0, True)
x = torch.randn(1, 32, 4, 8)
torch.testing.assert_close(ring(x, x, x), plain(x, x, x))
