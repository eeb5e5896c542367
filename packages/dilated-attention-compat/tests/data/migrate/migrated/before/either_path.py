try:
    from dilated_attention_pytorch import RingDilatedAttention
except ImportError:  # 0.1 did not export it
    from dilated_attention_pytorch.ring_dilated_attention import RingDilatedAttention

attn = RingDilatedAttention([2048], [1], use_checkpointing=False)
