"""Where the rows that a model is given lie in the sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from .cache import KeyValueCache


def global_rows(
    tokens: Tensor, positions: Tensor | None, cache: KeyValueCache | None, *, ring: bool
) -> Tensor:
    """The global positions of the rows of `tokens`, (n,) int64.

    Args:
        tokens: (b, n) int64.
        positions: As passed; None counts on from the cache's rows, or from 0.
        cache: Of the rows so far.
        ring: Whether a process group holds the sequence.

    Raises:
        ValueError: A wrong shape, a ring without positions, or positions with a cache.
        TypeError: Tokens or positions that are not int64.
    """
    if tokens.dtype != torch.int64:
        raise TypeError(f"tokens must be int64, got {tokens.dtype}; use tokens.long()")
    if tokens.dim() != 2:
        raise ValueError(f"tokens must have shape (batch, n), got {tuple(tokens.shape)}")
    n = tokens.shape[1]
    if cache is not None and positions is not None:
        raise ValueError("a cache knows the positions of the rows after its own: pass no positions")
    if positions is None:
        if ring:
            raise ValueError(
                "positions must be given with group: a rank's rows do not say where in the "
                "sequence they are; pass positions(n, group=group) with the global length n"
            )
        past = 0 if cache is None else cache.length
        return torch.arange(past, past + n, device=tokens.device)
    if positions.dtype != torch.int64:
        raise TypeError(f"positions must be int64, got {positions.dtype}")
    if positions.shape != (n,):
        raise ValueError(
            f"positions must have one entry for each of the {n} rows, got shape "
            f"{tuple(positions.shape)}"
        )
    return positions
