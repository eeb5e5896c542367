import torch

from dilated_attention_pytorch import RingDilatedAttentionV2


def run(n, heads, dim, use_tf32=False):
    attn = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2], dropout=0.0, ring_size=4)
    x = torch.randn(2, n, heads, dim)
    return attn(x, x, x)


if __name__ == "__main__":
    print(run(64, 6, 8).sum())
