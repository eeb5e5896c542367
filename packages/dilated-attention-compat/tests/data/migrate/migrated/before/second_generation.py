"""The classes that came after the first ring."""

import torch

from dilated_attention_pytorch.ring_attention_correct import RingAttentionCorrect
from dilated_attention_pytorch.ring_attention_correct_v2 import RingAttentionCorrectV2
from dilated_attention_pytorch.ring_dilated_attention_v2 import RingDilatedAttentionV2
from dilated_attention_pytorch.true_ring_dilated_attention import TrueRingDilatedAttention

dtype = torch.bfloat16
first = RingAttentionCorrect(dropout=0.1, device="cuda", dtype=dtype)
second = RingAttentionCorrectV2(0.1, "cuda", dtype)
third = RingDilatedAttentionV2([16], [1], 0.0, 4, "cuda", dtype)
fourth = TrueRingDilatedAttention([16], [1], ring_size=2, chunk_size_kv=512)
q = torch.randn(1, 16, 2, 4)
print(first(q, q, q, ring_size=2).shape, second(q, q, q, 2).shape)
