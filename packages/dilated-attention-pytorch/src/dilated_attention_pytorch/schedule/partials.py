"""Replicated layout: which (query row, head) partials a rank's own keys give to another rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..layout import Layout
from ..typing import BoolArray, IntArray
from .groups import Groups
from .heads import branch_offsets
from .messages import shard_keys, shard_queries
from .problem import Problem
from .rows import Rows


@dataclass(frozen=True, eq=False, slots=True)
class PartialBlock:
    """Query rows (in the owner's storage) and heads with at least one visible key."""

    rows: Rows
    heads: Rows


@lru_cache(maxsize=256)
def _query_classes(problem: Problem) -> tuple[tuple[tuple[int | None, ...], tuple[int, ...]], ...]:
    """Query heads by their offsets in all branches: (offsets per branch, heads)."""
    members: dict[tuple[int | None, ...], list[int]] = {}
    for h in range(problem.num_heads):
        members.setdefault(tuple(row[h] for row in problem.offsets), []).append(h)
    return tuple((offsets, tuple(heads)) for offsets, heads in members.items())


def _answered(
    problem: Problem, branch: int, offset: int, queries: Groups, keys: Groups
) -> BoolArray:
    """Which query rows of (branch, offset) see some key row."""
    segment, place = queries.coordinates(branch)
    rate = problem.pattern.branches[branch].dilation_rate
    key_segment, key_place = keys.coordinates(branch)
    selected = key_place % rate == offset
    starts, inverse = np.unique(key_segment[selected], return_inverse=True)
    if starts.size == 0:
        return np.zeros(len(place), dtype=np.bool_)
    smallest = np.full(starts.shape, np.iinfo(np.int64).max)
    np.minimum.at(smallest, inverse.reshape(-1), key_place[selected])
    at = np.minimum(np.searchsorted(starts, segment), len(starts) - 1)
    seen: BoolArray = (place % rate == offset) & (starts[at] == segment)
    if problem.is_causal:
        seen &= smallest[at] <= place
    return seen


@lru_cache(maxsize=4096)
def partial_blocks(
    problem: Problem, layout: Layout, source: int, target: int
) -> tuple[PartialBlock, ...]:
    """What `source`, holding its own keys, can say about the queries that `target` owns."""
    queries = shard_queries(problem, layout, target)
    keys = shard_keys(problem, layout, source)
    answers: dict[tuple[int, int], BoolArray] = {
        (branch, offset): _answered(problem, branch, offset, queries, keys)
        for branch in range(problem.num_branches)
        for offset in branch_offsets(problem, branch)
    }
    blocks = []
    for offsets, heads in _query_classes(problem):
        used = [answers[(b, o)] for b, o in enumerate(offsets) if o is not None]
        if not used:
            continue
        rows: IntArray = np.flatnonzero(np.logical_or.reduce(used))
        if rows.size:
            blocks.append(PartialBlock(Rows.of(rows), Rows.of(np.asarray(heads, dtype=np.int64))))
    return tuple(blocks)
