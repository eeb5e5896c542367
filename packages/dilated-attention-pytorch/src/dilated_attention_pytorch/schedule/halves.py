"""Halves of tiles: rows that the same branches cover, cut where segments end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..typing import IntArray
from .classes import Cell
from .problem import Problem


@dataclass(slots=True)
class Halves:
    """Tiles: (T, 2) first row and number of rows of each half, and the step of all rows.

    The same branches cover all rows of a tile.
    """

    first: IntArray
    rows: IntArray
    step: int

    @property
    def last(self) -> IntArray:
        """Last row of each half."""
        last: IntArray = self.first + self.step * np.maximum(self.rows - 1, 0)
        return last


def cut(
    problem: Problem,
    cell: Cell,
    firsts: Sequence[int],
    step: int,
    branches: Sequence[int],
    half: int,
) -> Halves:
    """Halves within the segments of the covering branches, in pairs of one segment if they can.

    Args:
        problem: what is computed.
        cell: the positions to cut.
        firsts: first rows, counted in the cell, of classes that the same branches cover.
        step: of the rows of each.
        branches: those that cover them.
        half: most rows of a half.
    """
    lengths = [problem.pattern.branches[i].segment_length for i in branches]
    starts = [cell.starts[i] for i in branches]
    columns: list[IntArray] = []
    for first in firsts:
        begin = cell.begin + first
        total = -((begin - cell.end) // step)
        cuts = [np.asarray([0, total], dtype=np.int64)]
        for w, start in zip(lengths, starts, strict=True):
            bounds = np.arange(start + ((begin - start) // w + 1) * w, cell.end, w, dtype=np.int64)
            cuts.append(np.minimum(total, -((begin - bounds) // step)))
        runs = np.unique(np.concatenate(cuts))
        count = np.diff(runs)
        halves = -(-count // half)
        run = np.repeat(np.arange(len(count)), halves)
        index = np.arange(len(run)) - np.repeat(np.cumsum(halves) - halves, halves)
        at, rows = runs[run] + index * half, np.minimum(half, count[run] - index * half)
        alone = (index == halves[run] - 1) & (halves[run] % 2 == 1)
        columns.append(np.stack([begin + at * step, rows, alone], 1))
    first_rows, rows, single = np.concatenate(columns).T
    order = np.concatenate(
        [
            np.flatnonzero(single == 0),
            _partners(np.flatnonzero(single), first_rows, lengths, starts),
        ]
    )
    odd = len(order) % 2 == 1
    pairs = (np.append(order, order[-1]) if odd else order).reshape(-1, 2)
    used = rows[pairs]
    if odd:
        used[-1, 1] = 0
    return Halves(first_rows[pairs], used, step)


def _partners(
    alone: IntArray, first_rows: IntArray, lengths: Sequence[int], starts: Sequence[int]
) -> IntArray:
    """The odd halves of runs so that neighbours share all segments, those without such one last."""
    if not len(alone):
        return alone
    places = [(first_rows[alone] - s) // w for w, s in zip(lengths, starts, strict=True)]
    _, segment = np.unique(np.stack(places, 1), axis=0, return_inverse=True)
    order = np.argsort(segment.reshape(-1), kind="stable")
    segment = segment.reshape(-1)[order]
    size = np.bincount(segment)
    index = np.arange(len(order)) - (np.cumsum(size) - size)[segment]
    left = (index == size[segment] - 1) & (size[segment] % 2 == 1)
    return alone[np.concatenate([order[~left], order[left]])]  # type: ignore[no-any-return]
