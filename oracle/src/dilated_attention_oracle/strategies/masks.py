"""Strategies for key masks and document boundaries."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dilated_attention_oracle.inputs import BoolArray, IntArray


@st.composite
def key_masks(draw: st.DrawFn, batch: int, n: int) -> BoolArray:
    """Key masks ``(b, n)``, True = attend; a whole row may be masked.

    Args:
        draw: Hypothesis's draw function.
        batch: Batch size.
        n: Length.

    Returns:
        Bool array.

    Raises:
        ValueError: If batch or n is negative.
    """
    if batch < 0 or n < 0:
        raise ValueError(f"batch, n: expected at least 0, got {batch} and {n}")
    rows = st.lists(st.booleans(), min_size=n, max_size=n) | st.just([False] * n)
    tails = st.integers(0, n).map(lambda real: [position < real for position in range(n)])
    drawn = [draw(tails | rows) for _ in range(batch)]
    return np.array(drawn, dtype=np.bool_).reshape(batch, n)


@st.composite
def boundaries(draw: st.DrawFn, n: int, max_documents: int = 5) -> IntArray:
    """Boundaries ``(docs + 1,)`` of packed documents; empty documents come up.

    Args:
        draw: Hypothesis's draw function.
        n: Length, the last boundary.
        max_documents: Most documents, at least 1.

    Returns:
        int64 array.

    Raises:
        ValueError: If n is negative or max_documents below 1.
    """
    if n < 0 or max_documents < 1:
        raise ValueError(f"expected n >= 0 and max_documents >= 1, got {n} and {max_documents}")
    inner = draw(st.lists(st.integers(0, n), max_size=max_documents - 1).map(sorted))
    return np.array([0, *inner, n], dtype=np.int64)
