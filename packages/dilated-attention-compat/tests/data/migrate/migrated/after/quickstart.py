"""Smallest possible use, straight from the old README."""

import torch

from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttentionV2(
    segment_lengths=[2048, 4096, 8192],
    dilation_rates=[1, 2, 4],
    dropout=0.1,
    ring_size=8,
)

q = torch.randn(1, 8192, 12, 64)
out = attention(q, q, q, is_causal=True)
print(out.shape)
