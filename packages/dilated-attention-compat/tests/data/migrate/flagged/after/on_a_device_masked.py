from dilated_attention_pytorch import RingDilatedAttention

attention = RingDilatedAttention([16, 32], [1, 2]).cuda().eval()
print(attention.training)


def run(q, mask):
    # TODO(dilated-attention-migrate): RingDilatedAttention: forward takes no attention_mask any more
    return attention(q, q, q, attention_mask=mask)
