try:
    from dilated_attention_pytorch import RingDilatedAttentionV2
except ImportError:  # 0.1 did not export it
    from dilated_attention_pytorch import RingDilatedAttentionV2

attn = RingDilatedAttentionV2(segment_lengths=[2048], dilation_rates=[1])
