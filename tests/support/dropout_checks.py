"""Dropout masks read off the output, and compared with the oracle's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dilated_attention_oracle.philox import dropout_factor as oracle_factor
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import DilationPattern, dilated_attention, ring_dilated_attention

from .ring_calls import (
    ONE_DEVICE,
    Ring,
    equals_oracle,
    library_pattern,
)


def masks(case: Case, ring: Ring) -> np.ndarray[Any, Any]:
    """(H, n, n): D of each pair, read off the output.

    With q = 0 every seen key has the same weight, and with v the identity out[p, h, k] is that
    weight times D.
    """
    n, heads = case.length, case.num_heads
    value = torch.eye(n, dtype=torch.float64)[None, :, None].expand(1, n, heads, n)
    zero = torch.zeros(1, n, heads, n, dtype=torch.float64)
    options: dict[str, Any] = {
        "dropout_p": case.dropout_p,
        "seed": case.seed,
        "is_causal": case.is_causal,
    }
    pattern = library_pattern(case.pattern)
    if ring is ONE_DEVICE:
        out, lse = dilated_attention(zero, zero, value, pattern, return_lse=True, **options)
    else:
        out, lse = ring_dilated_attention(
            zero, zero, value, pattern, return_lse=True, **options, **ring.options
        )
    weighted = torch.where(lse == -torch.inf, 0.0, lse.exp())[..., None] * out
    found: np.ndarray[Any, Any] = weighted[0].transpose(0, 1).numpy()
    return found


def masks_equal_philox(case: Case, ring: Ring) -> None:
    """Each pair's D, summed over branches, against the oracle's Philox, pair by pair."""
    want = np.zeros((case.num_heads, case.length, case.length))
    offsets = case.pattern.offsets(case.num_heads)
    for branch, (w, r) in enumerate(case.pattern.branches):
        for h, p, k in np.ndindex(want.shape):
            together = p // w == k // w and p % w % r == offsets[branch][h] == k % w % r
            if together and (k <= p or not case.is_causal):
                seed = case.seed
                assert seed is not None
                rank = k % w // r
                want[h, p, k] += oracle_factor(p, rank, h, branch, case.dropout_p, seed)
    found = masks(case, ring)
    assert np.array_equal(found > 0, want > 0)
    np.testing.assert_allclose(found, want, rtol=64 * 2.0**-52 * case.length)


def follows_its_seed(case: Case, ring: Ring, seed: int) -> None:
    for step in (seed, seed ^ 0x5DEECE66D):
        equals_oracle(replace(case, dropout_p=0.5, seed=step), ring)


def draws_afresh(ring: Ring) -> None:
    """seed=None: each step draws a seed from torch's generator, and follows `manual_seed`."""
    x = torch.ones(1, 16, 2, 4)
    pattern = DilationPattern.longnet([16], [1])

    def step() -> torch.Tensor:
        if ring is ONE_DEVICE:
            return dilated_attention(x, x, torch.ones_like(x), pattern, dropout_p=0.5)
        found: torch.Tensor = ring_dilated_attention(
            x, x, torch.ones_like(x), pattern, dropout_p=0.5, **ring.options
        )
        return found

    torch.manual_seed(0)
    first, second = step(), step()
    assert not torch.equal(first, second), "two steps share their dropout mask"
    torch.manual_seed(0)
    assert torch.equal(step(), first)
