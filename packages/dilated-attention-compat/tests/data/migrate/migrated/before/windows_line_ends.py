from dilated_attention_pytorch import RingDilatedAttention

attn = RingDilatedAttention(
    [16, 32],
    [1, 2],
    use_tf32=True,
)
print("done")
