"""Rows of one storage grouped by (branch, offset, segment)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..typing import IntArray
from .problem import Problem
from .rows import Rows

SegmentRows = dict[int, tuple[Rows, Rows]]


def group_by_segment(
    segment: IntArray, place: IntArray, dilation_rate: int, offset: int
) -> SegmentRows:
    """For each segment the storage rows selected at `offset` and their numbers x, x ascending.

    Args:
        segment: start of each row's segment.
        place: place u of each row in its segment.
        dilation_rate: r.
        offset: o; a row is selected iff `u mod r == o`.
    """
    selected = np.flatnonzero(place % dilation_rate == offset)
    if selected.size == 0:
        return {}
    starts, x = segment[selected], place[selected] // dilation_rate
    ascending = (starts[1:] > starts[:-1]) | ((starts[1:] == starts[:-1]) & (x[1:] > x[:-1]))
    if not bool(ascending.all()):
        order = np.lexsort((x, starts))
        selected, starts, x = selected[order], starts[order], x[order]
    cuts = np.flatnonzero(np.diff(starts)) + 1
    edges = [0, *cuts.tolist(), len(selected)]
    return {int(starts[a]): (Rows.of(selected[a:b]), Rows.of(x[a:b])) for a, b in pairwise(edges)}


class Groups:
    """The rows of one storage (a shard or a received block), grouped lazily."""

    def __init__(self, problem: Problem, positions: IntArray, *, queries: bool) -> None:
        self._problem = problem
        self._positions = positions
        self._queries = queries
        self._coordinates: dict[int, tuple[IntArray, IntArray]] = {}
        self._groups: dict[tuple[int, int], SegmentRows] = {}

    @property
    def positions(self) -> IntArray:
        """Global positions in storage order."""
        return self._positions

    def coordinates(self, branch: int) -> tuple[IntArray, IntArray]:
        """(segment, place) of every row in `branch`."""
        if branch not in self._coordinates:
            locate = (
                self._problem.query_coordinates if self._queries else self._problem.key_coordinates
            )
            self._coordinates[branch] = locate(branch, self._positions)
        return self._coordinates[branch]

    def segments(self, branch: int, offset: int) -> SegmentRows:
        """Rows selected by (branch, offset), per segment."""
        found = self._groups.get((branch, offset))
        if found is None:
            segment, place = self.coordinates(branch)
            rate = self._problem.pattern.branches[branch].dilation_rate
            found = group_by_segment(segment, place, rate, offset)
            self._groups[(branch, offset)] = found
        return found

    def reach(self, branch: int, offsets: Sequence[int]) -> dict[int, tuple[IntArray, IntArray]]:
        """For each offset the segments that hold a selected row, and the largest place in each."""
        segment, place = self.coordinates(branch)
        rate = self._problem.pattern.branches[branch].dilation_rate
        residue = place % rate
        reached: dict[int, tuple[IntArray, IntArray]] = {}
        for offset in offsets:
            selected = residue == offset
            starts, inverse = np.unique(segment[selected], return_inverse=True)
            if starts.size == 0:
                continue
            largest = np.full(starts.shape, -1, dtype=np.int64)
            np.maximum.at(largest, inverse.reshape(-1), place[selected])
            reached[offset] = (starts, largest)
        return reached
