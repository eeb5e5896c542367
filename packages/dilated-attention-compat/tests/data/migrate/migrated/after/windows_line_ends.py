from dilated_attention_pytorch import RingDilatedAttentionV2

attn = RingDilatedAttentionV2(
    segment_lengths=[16, 32],
    dilation_rates=[1, 2],
)
print("done")
