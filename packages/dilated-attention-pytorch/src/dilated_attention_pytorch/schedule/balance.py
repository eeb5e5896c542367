"""How the work of a call is spread over the ranks, and an order of rows that spreads it evenly."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from ..layout import Layout, even_lengths
from ..typing import IntArray
from .problem import Problem

# Part by which the slowest rank may exceed the mean before it is worth moving rows.
BALANCE_LIMIT = 0.05


@lru_cache(maxsize=4)
def pairs_by_position(problem: Problem) -> IntArray:
    """Pairs that the query at each position scores, over all branches and heads, int64 (n,).

    In branch i the query with number x in its (segment, offset) scores x + 1 keys if causal, and
    all `ceil((length - o) / r)` rows of them otherwise. The sum over all positions is
    `cost.visible_pairs`. Keys that a mask hides count; torchscale's row shift does not.
    """
    positions = np.arange(problem.n, dtype=np.int64)
    bounds = np.asarray(problem.cu_seqlens or (0, problem.n), dtype=np.int64)
    pairs = np.zeros(problem.n, dtype=np.int64)
    for branch, offsets in enumerate(problem.offsets):
        rate = problem.pattern.branches[branch].dilation_rate
        heads = np.bincount([o for o in offsets if o is not None], minlength=rate)
        segment, place = problem.key_coordinates(branch, positions)
        offset = place % rate
        if problem.is_causal:
            seen = place // rate + 1
        else:
            document_end = bounds[np.searchsorted(bounds, positions, side="right")]
            length = np.minimum(problem.segment_length(branch), document_end - segment)
            seen = -((offset - length) // rate)
        pairs += heads[offset] * seen
    pairs.setflags(write=False)
    return pairs


def pairs_by_rank(problem: Problem, layout: Layout) -> IntArray:
    """Pairs that each rank scores, int64 (R,): those of the queries it holds."""
    pairs = pairs_by_position(problem)
    ranks = range(layout.ring_size)
    return np.array([pairs[layout.positions(rank)].sum() for rank in ranks], dtype=np.int64)


def excess(pairs: IntArray) -> float:
    """By which part the busiest rank's pairs exceed the mean: `max / mean - 1`."""
    total = int(pairs.sum())
    return int(pairs.max()) * len(pairs) / total - 1 if total else 0.0


def balanced_map(
    problem: Problem, ring_size: int, limit: float = BALANCE_LIMIT
) -> tuple[IntArray, float]:
    """(index map, its excess): rows dealt so that ranks score about equally many pairs.

    Contiguous shards where their excess is at most `limit`. Else the sequence is cut into 2 m R
    chunks, ordered by their pairs per row and dealt out to and fro, so that m = 1 gives every rank
    a heavy chunk and a light one; for one dense branch that is `zigzag`. m doubles until the limit
    is kept; where no m keeps it, the best wins. Few chunks keep the short branches local.

    Rows of a rank ascend; lengths are `even_lengths`.
    """
    pairs, n = pairs_by_position(problem), problem.n
    cuts = list(pairwise((0, *accumulate(even_lengths(n, ring_size)))))

    def excess_of(rows: IntArray) -> float:
        return excess(np.array([pairs[rows[start:end]].sum() for start, end in cuts]))

    rows = np.arange(n, dtype=np.int64)
    found = excess_of(rows)
    chunks = ring_size
    while found > limit and chunks < n:
        chunks = min(2 * chunks, n)
        dealt = _deal(pairs, chunks, ring_size)
        other = np.concatenate([np.sort(dealt[start:end]) for start, end in cuts])
        if excess_of(other) < found:
            rows, found = other, excess_of(other)
    return rows, found


def _deal(pairs: IntArray, chunks: int, ring_size: int) -> IntArray:
    """Positions, those of rank 0 first, once chunks have been dealt by their pairs per row."""
    edges = np.arange(chunks + 1, dtype=np.int64) * len(pairs) // chunks
    sums = np.concatenate([[0], np.cumsum(pairs)])[edges]
    heaviest_first = np.argsort(-np.diff(sums) / np.diff(edges), kind="stable")
    turn, place = np.divmod(np.arange(chunks), ring_size)
    owner = np.empty(chunks, dtype=np.int64)
    owner[heaviest_first] = np.where(turn % 2 == 0, place, ring_size - 1 - place)
    of_row = np.repeat(owner, np.diff(edges))
    return np.argsort(of_row, kind="stable").astype(np.int64)
