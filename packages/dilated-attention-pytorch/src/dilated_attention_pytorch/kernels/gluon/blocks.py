"""How many rows the Hopper kernels take at a time; known without triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import MOST_ROWS

# Rows of half a tile: a consumer's.
HALF: Final = 64


@dataclass(frozen=True, slots=True)
class Blocks:
    """Columns that a row fills in shared memory, rows that come at a time, buffers for them."""

    columns: int
    block: int
    stages: int


def forward_blocks(head_dim: int) -> Blocks:
    """Blocks of the forward kernel."""
    return Blocks(64, MOST_ROWS, 3) if head_dim <= 64 else Blocks(128, MOST_ROWS, 2)


def backward_blocks(head_dim: int) -> Blocks:
    """Blocks of both backward kernels."""
    return Blocks(64, 64, 4) if head_dim <= 64 else Blocks(128, 64, 4)
