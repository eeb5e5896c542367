"""Which key/value rows travel from one rank to another, and in which pieces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from ..layout import Layout
from ..typing import BoolArray, IntArray
from .groups import Groups
from .heads import KeyClass, key_classes
from .problem import Problem


@dataclass(frozen=True, eq=False, slots=True)
class Message:
    """Rows of one rank that another will use, each once, per class of key/value heads.

    `rows[c]` are row numbers in the sender's storage for class c, ascending by global position;
    `positions[c]` are those positions.
    """

    rows: tuple[IntArray, ...]
    positions: tuple[IntArray, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing travels."""
        return all(len(rows) == 0 for rows in self.rows)


def needed(problem: Problem, key_class: KeyClass, queries: Groups, keys: Groups) -> BoolArray:
    """Which key rows some query may see in some branch, for the heads of one class.

    A row is needed iff for some branch and some offset of the class both it and a query are
    selected in one segment (and, causal, the query stands at or after it). Key masks are not
    consulted: they are data, and the plan is not.
    """
    mask = np.zeros(len(keys.positions), dtype=np.bool_)
    for branch, offsets in enumerate(key_class.offsets):
        if not offsets:
            continue
        segment, place = keys.coordinates(branch)
        residue = place % problem.pattern.branches[branch].dilation_rate
        for offset, (starts, largest) in queries.reach(branch, offsets).items():
            at = np.minimum(np.searchsorted(starts, segment), len(starts) - 1)
            seen = (residue == offset) & (starts[at] == segment)
            if problem.is_causal:
                seen &= place <= largest[at]
            mask |= seen
    return mask


@lru_cache(maxsize=512)
def shard_queries(problem: Problem, layout: Layout, rank: int) -> Groups:
    """The rank's own rows as queries."""
    return Groups(problem, layout.positions(rank), queries=True)


@lru_cache(maxsize=512)
def shard_keys(problem: Problem, layout: Layout, rank: int) -> Groups:
    """The rank's own rows as keys."""
    return Groups(problem, layout.positions(rank), queries=False)


@lru_cache(maxsize=4096)
def message(problem: Problem, layout: Layout, source: int, target: int) -> Message:
    """The rows that `target`'s queries need from `source`'s shard."""
    classes = key_classes(problem)
    if layout.lengths[source] == 0 or layout.lengths[target] == 0:
        none = np.zeros(0, dtype=np.int64)
        return Message((none,) * len(classes), (none,) * len(classes))
    keys = shard_keys(problem, layout, source)
    queries = shard_queries(problem, layout, target)
    rows, positions = [], []
    for key_class in classes:
        found = np.flatnonzero(needed(problem, key_class, queries, keys))
        at = keys.positions[found]
        if not layout.contiguous:
            order = np.argsort(at, kind="stable")
            found, at = found[order], at[order]
        rows.append(found)
        positions.append(at)
    return Message(tuple(rows), tuple(positions))


def piece_capacity(problem: Problem, layout: Layout, target: int, buffer_shards: int) -> int:
    """Row-heads in one piece: two pieces are in flight, together `buffer_shards` shards."""
    return max(1, buffer_shards * layout.lengths[target] // 2) * problem.num_kv_heads


def piece_bound(problem: Problem, layout: Layout, buffer_shards: int) -> int:
    """An upper bound on the pieces of any message, from the shard lengths alone.

    Every rank must count rounds alike without planning the others' messages.
    """
    filled = [length for length in layout.lengths if length]
    if len(filled) < 2:
        return 1
    spare = problem.num_kv_heads - 1
    worst = min(filled)
    capacity = max(1, buffer_shards * worst // 2) * problem.num_kv_heads
    return -(-max(filled) * problem.num_kv_heads // max(1, capacity - spare))


@lru_cache(maxsize=256)
def message_bound(problem: Problem, layout: Layout) -> int:
    """Row-heads that no message exceeds, from the shard lengths and the pattern alone.

    A branch sends rows of those segments only that leave a stretch of the shard: two of each
    stretch at most, and of these every r-th row for each offset.
    """
    longest = max(layout.lengths)
    stretches = 1 if layout.contiguous else 2
    starts = (0, *accumulate(layout.lengths))
    total = 0
    for key_class in key_classes(problem):
        rows = 0
        for branch, offsets in zip(problem.pattern.branches, key_class.offsets, strict=True):
            w, rate = branch.segment_length, branch.dilation_rate
            apart = layout.contiguous and problem.cu_seqlens is None
            if apart and all(start % w == 0 for start in starts[:-1]):
                continue
            leaving = min(longest, 2 * stretches * w)
            rows += len(offsets) * (leaving // rate + 2 * stretches + 1)
        rows = longest if layout.order == "map" else min(rows, longest)
        total += rows * len(key_class.heads)
    return total


@lru_cache(maxsize=4096)
def pieces(
    problem: Problem, layout: Layout, source: int, target: int, buffer_shards: int
) -> tuple[Message, ...]:
    """The message cut at ascending global positions so that each piece fits the receive buffer."""
    whole = message(problem, layout, source, target)
    if whole.empty:
        return ()
    classes = key_classes(problem)
    capacity = piece_capacity(problem, layout, target, buffer_shards)
    total = sum(len(r) * len(c.heads) for r, c in zip(whole.rows, classes, strict=True))
    if total <= capacity:
        return (whole,)
    union, inverse = np.unique(np.concatenate(whole.positions), return_inverse=True)
    heads = np.concatenate(
        [np.full(len(r), len(c.heads)) for r, c in zip(whole.rows, classes, strict=True)]
    )
    load = np.cumsum(np.bincount(inverse.reshape(-1), weights=heads, minlength=len(union)))
    cuts, done = [0], 0.0
    while cuts[-1] < len(union):
        step = int(np.searchsorted(load, done + capacity, side="right"))
        cuts.append(step)
        done = float(load[step - 1])
    result = []
    for begin, end in pairwise(cuts):
        low, high = union[begin], union[end - 1]
        spans = [
            slice(int(np.searchsorted(p, low)), int(np.searchsorted(p, high, side="right")))
            for p in whole.positions
        ]
        result.append(
            Message(
                tuple(r[s] for r, s in zip(whole.rows, spans, strict=True)),
                tuple(p[s] for p, s in zip(whole.positions, spans, strict=True)),
            )
        )
    return tuple(result)
