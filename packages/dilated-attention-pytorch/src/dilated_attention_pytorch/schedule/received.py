"""Rows received from other ranks as one packed sequence, and which of them count how often.

A group of messages lies in one buffer, class by class, heads fastest (`ring/packing.py`). Seen as
one sequence of rows of one head, the rows of a key/value head step evenly in it. What a set of
queries sees of them is found by counting, row by row, how many branches hold each; rows that count
alike and step evenly make a **set**, which a kernel streams through one view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..typing import BoolArray, IntArray
from .classes import progressions
from .plan import RankPlan
from .problem import Problem

# More sets than this of one (tile, head) are not worth a stream each.
_MOST_SETS = 64


class EvenSet(NamedTuple):
    """Rows `first + step * i`, `i < rows`; each counts `weight` times."""

    first: int
    step: int
    rows: int
    weight: int


@dataclass(frozen=True, eq=False, slots=True)
class Received:
    """The rows of a group of messages as one sequence.

    Args:
        positions: for each key/value head the global positions of its rows, ascending.
        first: for each key/value head the place of its first row in the sequence.
        step: and how far its rows lie apart.
        rows: length of the sequence.
    """

    positions: tuple[IntArray, ...]
    first: tuple[int, ...]
    step: tuple[int, ...]
    rows: int


def received(plan: RankPlan, group: int) -> Received:
    """What a rank receives in a group of rounds."""
    gathered = plan.gathered(group)
    heads = plan.problem.num_kv_heads
    positions = [np.zeros(0, dtype=np.int64)] * heads
    first, step, base = [0] * heads, [1] * heads, 0
    for key_class, rows in zip(plan.classes, gathered.positions, strict=True):
        for place, head in enumerate(key_class.heads):
            positions[head], first[head], step[head] = rows, base + place, len(key_class.heads)
        base += len(rows) * len(key_class.heads)
    return Received(tuple(positions), tuple(first), tuple(step), base)


def segments(
    problem: Problem, branch: int, positions: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """(begin, end, place) of the segments in which positions lie, and their place there."""
    begin, place = problem.key_coordinates(branch, positions)
    end = begin + problem.segment_length(branch)
    bounds = np.asarray(problem.cu_seqlens or (0, problem.n), dtype=np.int64)
    document = np.searchsorted(bounds, positions, side="right")
    return begin, np.minimum(end, bounds[document]), place


class Reach(NamedTuple):
    """Rows low:high of a sorted list of positions, of which `residue` modulo `rate` count."""

    low: int
    high: int
    rate: int
    residue: int


def _held(positions: IntArray, reach: Reach) -> BoolArray:
    held = np.zeros(len(positions), dtype=np.bool_)
    some = positions[reach.low : reach.high]
    held[reach.low : reach.high] = some % reach.rate == reach.residue
    return held


def even_runs(rows: IntArray) -> list[tuple[int, int, int]]:
    """Ascending rows as runs (first of them, how many, step) that step evenly."""
    found: list[tuple[int, int, int]] = []
    begin = 0
    turns = np.flatnonzero(np.diff(rows, 2)) + 2
    for end in [*turns.tolist(), len(rows)]:
        # The step to the second row of a run is free.
        if end - begin < 2 and end < len(rows):
            continue
        if end > begin:
            step = int(rows[begin + 1] - rows[begin]) if end - begin > 1 else 1
            found.append((int(rows[begin]), end - begin, step))
        begin = end
    return found


def _runs(rows: IntArray, weight: int) -> list[EvenSet]:
    return [EvenSet(first, step, count, weight) for first, count, step in even_runs(rows)]


def _periodic_sets(count: IntArray, begin: int, end: int, period: int) -> list[EvenSet] | None:
    """Rows begin:end, whose counts repeat, as sets; None where they do not repeat."""
    some = count[begin:end]
    if not 0 < period <= len(some) or not np.array_equal(some[period:], some[:-period]):
        return None
    found = []
    for weight in np.unique(some[some > 0]).tolist():
        for first, step in progressions(some[:period] == weight):
            rows = -((first - len(some)) // step)
            found.append(EvenSet(begin + first, step, rows, int(weight)))
    return found


def _shared(positions: IntArray, reaches: list[Reach]) -> list[EvenSet]:
    """Every row once, with how many of the reaches hold it."""
    count = np.zeros(len(positions), dtype=np.int64)
    for reach in reaches:
        count += _held(positions, reach)
    cuts = sorted({bound for reach in reaches for bound in (reach.low, reach.high)})
    found: list[EvenSet] = []
    for begin, end in pairwise(cuts):
        inside = [x.rate for x in reaches if x.low <= begin and end <= x.high]
        if not inside:
            continue
        beyond = positions[begin] + math.lcm(*inside)
        period = int(np.searchsorted(positions[begin:end], beyond))
        sets = _periodic_sets(count, begin, end, period)
        if sets is None:
            some = count[begin:end]
            sets = [
                x
                for weight in np.unique(some[some > 0]).tolist()
                for x in _runs(begin + np.flatnonzero(some == weight), weight)
            ]
        found += sets
    return found


def _apart(positions: IntArray, reaches: list[Reach]) -> list[EvenSet]:
    """The rows of every reach by themselves."""
    return [x for reach in reaches for x in _runs(np.flatnonzero(_held(positions, reach)), 1)]


def even_sets(positions: IntArray, reaches: list[Reach], fewest: int) -> list[EvenSet] | None:
    """The rows that reaches hold, each set at least `fewest` long: shared ones once if that can be.

    None where there is no such cut. A kernel that reads `fewest` rows at a time then reads none but
    rows of the set.
    """
    for cut in (_shared, _apart):
        found = cut(positions, reaches)
        if len(found) <= _MOST_SETS and all(x.rows >= fewest for x in found):
            return found
    return None
