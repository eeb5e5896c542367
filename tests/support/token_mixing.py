"""Which rows notice another key and value of one token."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dilated_attention_oracle.strategies import Case

from .containment import seen_matrix
from .ring_calls import Ring, attend, tensors


def noticed(before: Tensor, after: Tensor) -> list[tuple[int, ...]]:
    """Indices of the rows (all but the last dimension) that differ in some bit."""
    found = (before != after).any(-1) | before.isnan().any(-1) | after.isnan().any(-1)
    return [tuple(row) for row in found.nonzero().tolist()]


def functions_mix_as_the_pattern_says(case: Case, ring: Ring, token: int) -> None:
    """Another key and value of one token; and another query."""
    q, k, v = tensors(case)
    before, _ = attend(case, ring, q, k, v)
    seen = seen_matrix(case)
    for row in (k, v):
        row[:, token] += 1.0
    after, _ = attend(case, ring, q, k, v)
    assert noticed(before, after) == sorted(
        (int(b), int(p), int(h)) for b, h, p in np.argwhere(seen[..., token])
    )
