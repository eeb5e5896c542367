from dilated_attention_pytorch import RingDilatedAttentionV2

sparse = RingDilatedAttentionV2(
    segment_lengths=[2048, 4096],
    dilation_rates=[1, 2],
    dropout=0.0,
    ring_size=1,
)
