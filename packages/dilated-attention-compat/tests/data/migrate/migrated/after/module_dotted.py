import dilated_attention_pytorch

layer = dilated_attention_pytorch.create_multihead_dilated_attention(
    "ring",
    embed_dim=128,
    num_heads=4,
    segment_lengths=[32],
    dilation_rates=[1],
)
core = dilated_attention_pytorch.RingDilatedAttentionV2(segment_lengths=[32], dilation_rates=[1])
