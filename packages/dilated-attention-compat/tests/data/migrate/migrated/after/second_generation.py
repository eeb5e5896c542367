"""The classes that came after the first ring."""

import torch

from dilated_attention_pytorch import RingAttentionCorrectV2
from dilated_attention_pytorch import RingDilatedAttentionV2
from dilated_attention_pytorch import TrueRingDilatedAttention

dtype = torch.bfloat16
first = RingAttentionCorrectV2(dropout=0.1)
second = RingAttentionCorrectV2(0.1)
third = RingDilatedAttentionV2([16], [1], 0.0, 4)
fourth = TrueRingDilatedAttention([16], [1], ring_size=2)
q = torch.randn(1, 16, 2, 4)
print(first(q, q, q, ring_size=2).shape, second(q, q, q, 2).shape)
