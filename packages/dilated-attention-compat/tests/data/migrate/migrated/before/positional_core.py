import torch

from dilated_attention_pytorch import RingDilatedAttention


def run(n, heads, dim, use_tf32=False):
    attn = RingDilatedAttention([16, 32], [1, 2], 0.0, use_tf32, 512, 4)
    x = torch.randn(2, n, heads, dim)
    return attn(x, x, x)


if __name__ == "__main__":
    print(run(64, 6, 8).sum())
