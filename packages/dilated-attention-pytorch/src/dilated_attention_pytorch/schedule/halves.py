"""Halves of tiles: rows of one class, cut where segments end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..typing import IntArray
from .classes import Cell
from .problem import Problem


@dataclass(slots=True)
class Halves:
    """Tiles of one class: (T, 2) first row and number of rows of the halves, and their step."""

    first: IntArray
    rows: IntArray
    step: int

    @property
    def last(self) -> IntArray:
        """Last row of each half."""
        last: IntArray = self.first + self.step * np.maximum(self.rows - 1, 0)
        return last


def cut(
    problem: Problem, cell: Cell, first: int, step: int, branches: set[int], half: int
) -> Halves:
    """Halves within the segments of the covering branches, in pairs of one segment if they can."""
    begin = cell.begin + first
    total = -((begin - cell.end) // step)
    cuts = [np.asarray([0, total], dtype=np.int64)]
    for i in branches:
        w = problem.pattern.branches[i].segment_length
        start = cell.starts[i]
        bounds = np.arange(start + ((begin - start) // w + 1) * w, cell.end, w, dtype=np.int64)
        cuts.append(np.minimum(total, -((begin - bounds) // step)))
    runs = np.unique(np.concatenate(cuts))
    lengths = np.diff(runs)
    halves = -(-lengths // half)
    run = np.repeat(np.arange(len(lengths)), halves)
    index = np.arange(len(run)) - np.repeat(np.cumsum(halves) - halves, halves)
    at, rows = runs[run] + index * half, np.minimum(half, lengths[run] - index * half)
    # The odd half of a run is paired with that of another run.
    alone = (index == halves[run] - 1) & (halves[run] % 2 == 1)
    order = np.concatenate([np.flatnonzero(~alone), np.flatnonzero(alone)])
    odd = len(order) % 2 == 1
    pairs = (np.append(order, order[-1]) if odd else order).reshape(-1, 2)
    count = rows[pairs]
    if odd:
        count[-1, 1] = 0
    return Halves(begin + at[pairs] * step, count, step)
