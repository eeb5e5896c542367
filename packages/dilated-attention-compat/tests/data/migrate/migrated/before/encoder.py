from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dilated_attention_pytorch import (
    MultiheadDilatedAttention,
    RingMultiheadDilatedAttention,  # long sequences only
)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, segments: list[int], rates: list[int]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = RingMultiheadDilatedAttention(
            dim,
            heads,
            segments,
            rates,
            0.1,
            use_checkpointing=True,  # saves memory
            compile_model=False,
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.attn(h, h, h, is_causal=True)[0]
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    def __init__(self, depth: int = 6, dim: int = 512) -> None:
        super().__init__()
        self.local = MultiheadDilatedAttention(dim, 8, [1, 2], [2048, 4096])
        self.blocks = nn.ModuleList([Block(dim, 8, [2048, 4096], [1, 2]) for _ in range(depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x + self.local(x, x, x), x.shape[-1:])
        for block in self.blocks:
            x = block(x)
        return x
