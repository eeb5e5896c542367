"""A configuration that never constructed; what was meant still can be had."""

from dilated_attention_pytorch import (
    create_multihead_dilated_attention,
)

model = create_multihead_dilated_attention(
    "ring_distributed",
    embed_dim=1024,
    num_heads=16,
    segment_lengths=[2048, 4096, 8192],
    dilation_rates=[1, 2, 4],
)
