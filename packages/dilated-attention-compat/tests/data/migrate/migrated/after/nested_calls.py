import torch
from torch import nn

from dilated_attention_pytorch import RingDilatedAttentionV2, create_multihead_dilated_attention


def stack(depth, width, heads=8):
    return nn.ModuleDict(
        {
            f"layer_{i}": nn.ModuleList(
                [
                    create_multihead_dilated_attention("ring", embed_dim=width, num_heads=heads, segment_lengths=[64 * 2**i], dilation_rates=[2**i], bias=False),
                    nn.LayerNorm(width),
                ]
            )
            for i in range(depth)
        }
    )


net = torch.compile(nn.Sequential(nn.Identity(), RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])).eval())
out = RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])(*[torch.randn(1, 16, 2, 4)] * 3)
