"""Causal self-attention of a decoder block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from .rotary import Rotation

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of query, key and value (b, n, h, d) over whichever ring holds the sequence."""


class CausalSelfAttention(nn.Module):
    """Projections, rotary positions, dilated attention, and a norm before the output projection.

        out_proj(inner_norm(attention(rotate(q_proj(x)), rotate(k_proj(x)), v_proj(x))))

    The inner norm is that of MAGNETO's sub-LN (Wang et al. 2022, arXiv 2210.06423, Fig. 2).

    Args:
        embed_dim: Width e of x.
        num_heads: Number of heads H.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.inner_norm = nn.LayerNorm(embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """Attention of the rows of `x`, (b, n, e), as `attend` computes it."""
        query, key, value = (
            projection(x).unflatten(-1, (self.num_heads, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = attend(rotation(query), rotation(key), value)
        projected: Tensor = self.out_proj(self.inner_norm(out.flatten(-2)))
        return projected
