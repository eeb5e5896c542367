from dilated_attention_pytorch import (
    # layers
    create_multihead_dilated_attention,
    RingMultiheadDilatedAttentionV2,  # the ring
)

attention = create_multihead_dilated_attention(
    # sizes
    "ring",
    embed_dim=512,
    num_heads=8,  # heads

    # pattern
    segment_lengths=[2048, 4096],
    dilation_rates=[1, 2],
    # nothing else
)
is_ring = isinstance(attention, RingMultiheadDilatedAttentionV2)
