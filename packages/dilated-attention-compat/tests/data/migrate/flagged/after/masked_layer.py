from dilated_attention_pytorch import RingMultiheadDilatedAttention, ImprovedMultiheadDilatedAttention

ring = RingMultiheadDilatedAttention(512, 8, [16], [1])
improved = ImprovedMultiheadDilatedAttention(512, 8, [1], [16])


def encode(x, padding, triangle):
    # TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: forward takes no attn_mask any more
    a, _ = ring(x, x, x, key_padding_mask=padding, attn_mask=triangle)
    # TODO(dilated-attention-migrate): ImprovedMultiheadDilatedAttention: forward takes no need_weights any more
    b, weights = improved(a, a, a, need_weights=True)
    return b, weights
