"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation of each row of a sequence, or of a rank's rows of it.

    Pair j of a head, its entries j and j + d/2, is turned by the angle

        p * base ** (-2 j / d)        0 <= j < d/2

    where p is the row's *global* position (Eq. 15, 34). The product of a rotated query and a
    rotated key then depends on the distance of their positions alone, so that it does not matter
    which rank holds which row.

    Args:
        cos: (n, 1, d/2).
        sin: (n, 1, d/2).
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> Rotation:
        """The rotation of rows at these global positions.

        Args:
            positions: (n,) int64.
            head_dim: d, even.
            base: Base of the frequencies.
            dtype: Of cos and sin.
        """
        # float32 cannot tell neighbours apart beyond 2**24, and LongNet goes to 2**30.
        pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device)
        angles = positions.to(torch.float64)[:, None, None] * base ** (-pairs / head_dim)
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def query(self, x: Tensor) -> Tensor:
        """A query (b, n, h, d), rotated."""
        return self(x)

    def key(self, x: Tensor) -> Tensor:
        """A key (b, n, h, d), rotated."""
        return self(x)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (b, n, h, d), rotated."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            (first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1
        )
