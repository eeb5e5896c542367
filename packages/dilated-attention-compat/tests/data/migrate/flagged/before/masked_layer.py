from dilated_attention_pytorch import RingMultiheadDilatedAttention, ImprovedMultiheadDilatedAttention

ring = RingMultiheadDilatedAttention(512, 8, [16], [1])
improved = ImprovedMultiheadDilatedAttention(512, 8, [1], [16], use_tf32=True)


def encode(x, padding, triangle):
    a, _ = ring(x, x, x, key_padding_mask=padding, attn_mask=triangle)
    b, weights = improved(a, a, a, need_weights=True)
    return b, weights
