"""Strategies for splits of a sequence over ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dilated_attention_oracle.inputs import IntArray

ORDERS = ("contiguous", "zigzag", "permutation")


@st.composite
def shard_lengths(
    draw: st.DrawFn, n: int, *, max_ranks: int = 8, min_ranks: int = 1
) -> tuple[int, ...]:
    """Rows per rank: even, uneven or empty shards, more ranks than rows included.

    Args:
        draw: Hypothesis's draw function.
        n: Number of rows.
        max_ranks: Most ranks.
        min_ranks: Fewest ranks.

    Returns:
        One length per rank; they add up to n.

    Raises:
        ValueError: If n is negative or ``1 <= min_ranks <= max_ranks`` does not hold.
    """
    if n < 0 or not 1 <= min_ranks <= max_ranks:
        raise ValueError(
            f"expected n >= 0 and 1 <= min_ranks <= max_ranks, got {n}, {min_ranks} and {max_ranks}"
        )
    ranks = draw(st.integers(min_ranks, max_ranks))
    if draw(st.booleans()):
        return tuple(n // ranks + (rank < n % ranks) for rank in range(ranks))
    cuts = draw(st.lists(st.integers(0, n), min_size=ranks - 1, max_size=ranks - 1).map(sorted))
    return tuple(int(rows) for rows in np.diff([0, *cuts, n]))


@st.composite
def partitions(
    draw: st.DrawFn,
    n: int,
    *,
    max_ranks: int = 8,
    min_ranks: int = 1,
    orders: tuple[str, ...] = ORDERS,
) -> list[IntArray]:
    """The global positions of each rank's rows.

    ``zigzag`` cuts the sequence into ``2 R`` pieces and gives rank r pieces r and ``2 R - 1 - r``,
    so that causal work is even; ``permutation`` is any order at all.

    Args:
        draw: Hypothesis's draw function.
        n: Number of rows.
        max_ranks: Most ranks.
        min_ranks: Fewest ranks.
        orders: Which of the three orders to draw from.

    Returns:
        One int64 array per rank; together each of ``0 .. n - 1`` once.

    Raises:
        ValueError: For an unknown order or none, and as `shard_lengths`.
    """
    if not orders or not set(orders) <= set(ORDERS):
        raise ValueError(f"orders: expected a selection of {ORDERS}, got {orders}")
    lengths = draw(shard_lengths(n, max_ranks=max_ranks, min_ranks=min_ranks))
    ranks, order = len(lengths), draw(st.sampled_from(orders))
    if order == "zigzag":
        pieces = np.array_split(np.arange(n), 2 * ranks)
        return [np.concatenate([pieces[r], pieces[2 * ranks - 1 - r]]) for r in range(ranks)]
    positions = np.arange(n)
    if order == "permutation":
        positions = np.array(draw(st.permutations(range(n))), dtype=np.int64)
    return np.split(positions, np.cumsum(lengths)[:-1])
