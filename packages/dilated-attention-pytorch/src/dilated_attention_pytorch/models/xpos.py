"""Rotary positions with a decay over distance: xPos (Sun et al. 2022, arXiv 2212.10554)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .rotary import Rotation

_GAMMA = 0.4


@dataclass(frozen=True, slots=True)
class XPos:
    """The rotation of each row, and the factors that turn distance into decay.

    Pair j of a head is rotated as in `Rotation`; then a query at the *global* position p is
    multiplied by `zeta_j ** (p / scale_base)` and a key by `zeta_j ** (-p / scale_base)` with

        zeta_j = (2 j / d + 0.4) / 1.4        0 <= j < d/2

    so that their product carries `zeta_j ** ((p - k) / scale_base)` (Eq. 14 and Algorithm 1). It
    decays with distance for the keys before a query and grows for those after it: xPos is meant
    for causal attention.

    Args:
        rotation: Angles of the rows.
        growth: (n, 1, d), what keys are multiplied by, and queries divided by.
    """

    rotation: Rotation
    growth: Tensor

    @classmethod
    def at(
        cls, positions: Tensor, zeta: Tensor, base: float, scale_base: float, dtype: torch.dtype
    ) -> XPos:
        """The factors of rows at these global positions.

        Args:
            positions: (n,) int64. Their largest is read back from the device.
            zeta: (d/2,), in (0, 1].
            base: Base of the rotary frequencies.
            scale_base: Rows over which a pair decays by its zeta.
            dtype: Of queries and keys.

        Raises:
            ValueError: A position so far out that the factors would use up more than half of
                dtype's exponents.
        """
        farthest = int(positions.max()) if positions.numel() else 0
        steepest = -math.log(float(zeta.min()))
        if farthest / scale_base * steepest > -math.log(torch.finfo(dtype).tiny) / 2:
            raise ValueError(
                f"xPos at position {farthest} with scale_base {scale_base:g} leaves the range of "
                f"{dtype}; raise scale_base in proportion to the sequence, or use rotary positions"
            )
        rotation = Rotation.at(positions, 2 * len(zeta), base, dtype)
        exponents = positions.to(torch.float64)[:, None, None] / scale_base
        growth = zeta.to(torch.float64) ** -exponents
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return cls(rotation, torch.cat((growth, growth), dim=-1).to(wide))

    def query(self, x: Tensor) -> Tensor:
        """A query (b, n, h, d), rotated and shrunk."""
        return (self.rotation(x) / self.growth).to(x.dtype)

    def key(self, x: Tensor) -> Tensor:
        """A key (b, n, h, d), rotated and grown."""
        return (self.rotation(x) * self.growth).to(x.dtype)


class PositionEmbedding(nn.Module):
    """Rotary or xPos factors of queries and keys from global positions.

    Its state_dict is history's: with `kind` xpos the buffer `scale`, of embed_dim / 2 numbers
    `(2 i / embed_dim + 0.4) / 1.4`, of which every H-th is a head's zeta; with rotary nothing.

    Args:
        kind: `rotary` or `xpos`.
        embed_dim: Width e.
        num_heads: H; e / H is even.
        base: Base of the rotary frequencies, above 1.
        scale_base: Of xPos.

    Raises:
        ValueError: An unknown kind, an odd head dimension, or a base out of range.
    """

    scale: Tensor

    def __init__(
        self, kind: str, embed_dim: int, num_heads: int, base: float, scale_base: float
    ) -> None:
        super().__init__()
        if kind not in ("rotary", "xpos"):
            raise ValueError(f"position must be 'rotary' or 'xpos', got {kind!r}")
        if embed_dim % (2 * num_heads):
            raise ValueError(
                "positions turn pairs of a head's entries: d_model must be nhead times an even "
                f"head dimension, got {embed_dim} and {num_heads}"
            )
        if not base > 1 or not scale_base > 0:
            raise ValueError(
                "rotary_base must be above 1 and xpos_scale_base above 0, got "
                f"{base} and {scale_base}"
            )
        self.kind, self.base, self.scale_base = kind, base, scale_base
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        if kind == "xpos":
            pairs = torch.arange(0, embed_dim, 2) / embed_dim
            self.register_buffer("scale", (pairs + _GAMMA) / (1 + _GAMMA))

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation | XPos:
        """The factors of the rows at these positions, (n,) int64."""
        if self.kind == "rotary":
            return Rotation.at(positions, self.head_dim, self.base, dtype)
        zeta = self.scale[:: self.num_heads]
        return XPos.at(positions, zeta, self.base, self.scale_base, dtype)
