import torch
from torch import nn

from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention


def stack(depth, width, heads=8):
    return nn.ModuleDict(
        {
            f"layer_{i}": nn.ModuleList(
                [
                    RingMultiheadDilatedAttention(width, heads, [64 * 2**i], [2**i], bias=False),
                    nn.LayerNorm(width),
                ]
            )
            for i in range(depth)
        }
    )


net = torch.compile(nn.Sequential(nn.Identity(), RingDilatedAttention([16], [1])).eval())
out = RingDilatedAttention([16], [1])(*[torch.randn(1, 16, 2, 4)] * 3)
