"""How many rows a program takes, and how it runs, by head dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows of a program's tile, rows taken from the other side at a time, and how to run it."""

    own: int
    other: int
    warps: int
    stages: int


def forward_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the forward kernel."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(128, 64, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


def lanes_forward_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the forward kernel with lanes, which holds two accumulators."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


def dquery_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the dq kernels."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(64, 32, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


def dkey_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the dk, dv kernels."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(128, 32, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)
