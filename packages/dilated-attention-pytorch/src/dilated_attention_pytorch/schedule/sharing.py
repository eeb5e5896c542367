"""Which branch computes a pair that several branches hold, and with what weight.

All rows of a tile lie in the same branches. Over an interval of positions that lies in one segment
of each of the branches B, every key of branch j is also a key of branch i if r_i divides r_j: both
hold the tile's rows, so their residues agree modulo r_i. Branch i, the **leader**, then computes
the keys of both, each once, and weights a key by the number of branches that hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .classes import Cell, Offsets
from .halves import Halves
from .problem import Problem


@lru_cache(maxsize=4096)
def leaders(rates: tuple[int, ...], members: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """(leader, branches that it computes besides its own keys) for a set of branches.

    Args:
        rates: dilation rates of all branches.
        members: the set, bit i for branch i.
    """
    left = sorted((i for i in range(len(rates)) if members >> i & 1), key=lambda i: (rates[i], i))
    found: list[tuple[int, tuple[int, ...]]] = []
    while left:
        leader = left.pop(0)
        led = tuple(j for j in left if rates[j] % rates[leader] == 0)
        left = [j for j in left if j not in led]
        found.append((leader, led))
    return tuple(found)


def intervals(
    low: IntArray, high: IntArray
) -> tuple[npt.NDArray[np.bool_], IntArray, IntArray, IntArray]:
    """Cut positions so that the set of branches is constant within each interval.

    Args:
        low: (T, S, k) start of the segment of each of k branches for S sets of rows of T tiles.
        high: (T, S, k) its end.

    Returns:
        (valid, begin, end, sets): (T, M) and for `sets` (T, M, S), bit i for branch i. Neighbours
        with equal sets are joined.
    """
    tiles, _, branches = low.shape
    edges = np.sort(np.concatenate([low, high], 2).reshape(tiles, -1), axis=1)
    begin, end = edges[:, :-1].copy(), edges[:, 1:]
    inside = (low[:, None] <= begin[:, :, None, None]) & (end[:, :, None, None] <= high[:, None])
    sets: IntArray = (inside << np.arange(branches)).sum(3)
    valid = (begin < end) & (sets != 0).any(2)
    for m in range(1, begin.shape[1]):
        # An empty interval passes on what it found, so that its neighbours can be joined.
        empty = begin[:, m] == end[:, m]
        sets[:, m] = np.where(empty[:, None], sets[:, m - 1], sets[:, m])
        joined = (sets[:, m] == sets[:, m - 1]).all(1)
        begin[:, m] = np.where(joined, begin[:, m - 1], begin[:, m])
        valid[:, m] |= joined & valid[:, m - 1]
        valid[:, m - 1] &= ~joined
    return valid, begin, end, sets


class Weights:
    """Rows of weights, each one period of a pattern and `block` entries more.

    Args:
        block: weights that a kernel reads side by side.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self._rows: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
        self._values: list[npt.NDArray[np.float32]] = []
        self._length = 0

    def place(self, phases: IntArray, ratios: tuple[int, ...]) -> tuple[IntArray, IntArray]:
        """(first entry, period) of the weights for keys x, x + 1, ...

        Args:
            phases: (N, branches led): key x is also one of branch j's iff
                `(phases[:, j] + x) mod ratios[j] == 0`.
            ratios: rate of each branch over that of its leader.
        """
        if not ratios:
            at, period = self._row(())
            return np.full(len(phases), at, dtype=np.int64), np.full(len(phases), period)
        unique, inverse = np.unique(phases, axis=0, return_inverse=True)
        rows = [self._row(tuple(zip(ratios, (int(x) for x in row), strict=True))) for row in unique]
        found = np.asarray(rows, dtype=np.int64)[inverse.reshape(-1)]
        return found[:, 0], found[:, 1]

    def _row(self, key: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        if key not in self._rows:
            period = math.lcm(1, *(ratio for ratio, _ in key))
            x = np.arange(period + self.block)
            row = np.ones(len(x), dtype=np.float32)
            for ratio, phase in key:
                row += (x + phase) % ratio == 0
            self._rows[key] = (self._length, period)
            self._values.append(row)
            self._length += len(row)
        return self._rows[key]

    def values(self) -> npt.NDArray[np.float32]:
        """All rows, one after the other."""
        return np.concatenate(self._values) if self._values else np.ones(1, dtype=np.float32)


@dataclass(slots=True)
class Ranges:
    """Rows of the other side, `rate` apart, for some halves of some tiles; one entry a range.

    `behind` and `ahead` are how many more rows of the same segment lie before and after.
    """

    tile: IntArray
    halves: int
    member: int
    rate: int
    first: IntArray
    count: IntArray
    behind: IntArray
    ahead: IntArray
    phases: IntArray
    ratios: tuple[int, ...]

    def before(self, position: IntArray) -> IntArray:
        """Number of rows of each range before a position."""
        rows: IntArray = np.clip(-((self.first - position) // self.rate), 0, self.count)
        return rows


def ranges_of(
    problem: Problem,
    cell: Cell,
    halves: Halves,
    offsets: Offsets,
    branches: list[int],
    member: int,
) -> list[Ranges]:
    """What the tiles of a class meet through the branches that cover it, each pair once."""
    w = np.asarray([problem.pattern.branches[i].segment_length for i in branches])
    rates = tuple(problem.pattern.branches[i].dilation_rate for i in branches)
    start = np.asarray([cell.starts[i] for i in branches])
    low = start + (halves.first[:, :, None] - start) // w * w
    high = np.minimum(low + w, cell.document_end)
    anchors = low + np.asarray([offsets[i] for i in branches])
    valid, begin, end, sets = intervals(low, high)
    found: list[Ranges] = []
    where = np.argwhere(valid)
    codes = sets[where[:, 0], where[:, 1]]
    for code in np.unique(codes, axis=0):
        chosen = where[(codes == code).all(1)]
        tile, a, b = chosen[:, 0], begin[*chosen.T], end[*chosen.T]
        by_half = [dict(leaders(rates, int(members))) for members in code]
        for half, mine in enumerate(by_half):
            for leader, led in mine.items():
                both = by_half[1 - half].get(leader) == led
                if both and half == 1:
                    continue
                rate = rates[leader]
                anchor = anchors[tile, half, leader]
                first = a + (anchor - a) % rate
                ratios = tuple(rates[j] // rate for j in led)
                phases = np.stack(
                    [(first - anchors[tile, half, j]) // rate for j in led]
                    or [np.zeros_like(first)],
                    axis=1,
                )
                found.append(
                    Ranges(
                        tile,
                        3 if both else 1 << half,
                        member,
                        rate,
                        first,
                        np.maximum(0, -((first - b) // rate)),
                        (first - low[tile, half, leader]) // rate,
                        np.maximum(0, -((first - high[tile, half, leader]) // rate)),
                        phases,
                        ratios,
                    )
                )
    return found
