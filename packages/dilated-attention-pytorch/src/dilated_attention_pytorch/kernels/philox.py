"""Dropout masks from Philox 4x32-10 in global indices (Salmon et al., SC 2011)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..typing import IntArray

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """The four output words of each counter, stacked last; int64 tensors hold 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # An int64 product wraps modulo 2^64, so its two halves are the 32-bit words needed.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (b >> 32 & _LOW) ^ c1 ^ k0, b & _LOW, (a >> 32 & _LOW) ^ c3 ^ k1, a & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def dropout_factor(
    *,
    seed: Tensor,
    dropout_p: float,
    batch: int,
    num_heads: int,
    heads: Tensor,
    branch: int,
    positions: Tensor,
    key_x: IntArray,
    dtype: torch.dtype,
) -> Tensor:
    """D in {0, 1 / (1 - p)} of shape (b, heads, queries, keys), equal for every ring and blocking.

    With t the number of the key within its (segment, offset): key = (low, high 32 bits of seed),
    counter = (p mod 2^32, t // 4, batch * H + h, branch * 2^16 + p // 2^32), word `t mod 4`; an
    entry is kept iff word >= floor(dropout_p * 2^32).

    Args:
        seed: 0-d int64.
        dropout_p: probability of dropping an entry.
        batch: number of batch entries b.
        num_heads: H.
        heads: (heads,) int64, query head numbers.
        branch: branch number.
        positions: (queries,) int64, global query positions p.
        key_x: (keys,) int64, on the host.
        dtype: dtype of the result.
    """
    # Keys of a zigzag or mapped shard may be far apart: only the counters that they use are drawn.
    used, at = np.unique(key_x // 4, return_inverse=True)
    quads = torch.from_numpy(used).to(positions.device)
    index = torch.from_numpy(at.reshape(-1) * 4 + key_x % 4).to(positions.device)
    sequence = torch.arange(batch, device=heads.device)[:, None] * num_heads + heads
    words = philox(
        (
            (positions & _LOW)[None, None, :, None],
            quads[None, None, None, :],
            sequence[:, :, None, None],
            ((branch << 16) + (positions >> 32))[None, None, :, None],
        ),
        (seed & _LOW, seed >> 32 & _LOW),
    )
    words = words.flatten(-2)[..., index]
    kept = words >= math.floor(dropout_p * 2**32)
    return kept.to(dtype) * (0.0 if dropout_p == 1 else 1 / (1 - dropout_p))
