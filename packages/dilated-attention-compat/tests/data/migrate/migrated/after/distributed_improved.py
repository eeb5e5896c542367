from dilated_attention_pytorch import RingDilatedAttentionV2, create_multihead_dilated_attention

core = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2], dropout=0.1)
layer = create_multihead_dilated_attention(
    "improved_distributed", embed_dim=512, num_heads=8, segment_lengths=[16, 32], dilation_rates=[1, 2]
)
