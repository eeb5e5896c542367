"""Which branch computes a pair that several branches hold, and how often the pair counts.

All rows of a tile lie in the same branches. Over an interval of positions that lies in one segment
of each of the branches B, every key of branch j is also a key of branch i if r_i divides r_j: both
hold the tile's rows, so their residues agree modulo r_i. Branch i, the **leader**, then computes
the keys of both, each once. Its keys are cut into evenly spaced ones that the same branches hold,
so that all keys of a range count alike: a kernel adds one number to their scores, log2 of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .classes import Cell, Offsets, progressions
from .halves import Halves
from .problem import Problem


class Share(NamedTuple):
    """Keys `residue` modulo `rate` of branch `leader`, each held by `weight` branches."""

    leader: int
    residue: int
    rate: int
    weight: int


def _cut(
    leader: int, led: tuple[int, ...], rates: tuple[int, ...], residues: tuple[int, ...]
) -> list[Share] | None:
    """The leader's keys by how many of the led branches hold them too, in steps of known rates.

    None if that takes a step which is no branch's rate: TMA reads through views of those alone.
    """
    rate = rates[leader]
    period = math.lcm(rate, *(rates[j] for j in led)) // rate
    key = residues[leader] + rate * np.arange(period)
    weight = np.ones(period, dtype=np.int64)
    for j in led:
        weight += (key - residues[j]) % rates[j] == 0
    steps = tuple(
        r // rate for r in sorted(set(rates)) if r % rate == 0 and period % (r // rate) == 0
    )
    if period not in steps:
        return None
    return [
        Share(leader, int(key[first]), rate * step, int(number))
        for number in np.unique(weight)
        for first, step in progressions(weight == number, steps)
    ]


def _blocks(shares: list[Share], length: int, block: int) -> int:
    return sum(-(-length // (share.rate * block)) for share in shares)


@lru_cache(maxsize=4096)
def shares(
    rates: tuple[int, ...],
    residues: tuple[int, ...],
    members: int,
    length: int,
    longest: int,
    block: int,
) -> tuple[Share, ...]:
    """How the keys of a set of branches in an interval are computed, each once where it pays.

    A branch is led where that takes fewer blocks than its own keys would.

    Args:
        rates: dilation rates of all branches.
        residues: of the keys of each, modulo its rate.
        members: the set, bit i for branch i.
        length: positions of the interval.
        longest: the longest step by which keys may be read.
        block: keys that a kernel reads at a time.
    """
    left = sorted((i for i in range(len(rates)) if members >> i & 1), key=lambda i: (rates[i], i))
    found: list[Share] = []
    while left:
        leader = left.pop(0)
        led: tuple[int, ...] = ()
        mine = [Share(leader, residues[leader], rates[leader], 1)]
        for j in left:
            if rates[j] % rates[leader]:
                continue
            more = _cut(leader, (*led, j), rates, residues)
            if more is None or max(share.rate for share in more) > longest:
                continue
            alone = [*mine, Share(j, residues[j], rates[j], 1)]
            if _blocks(more, length, block) < _blocks(alone, length, block):
                mine, led = more, (*led, j)
        left = [j for j in left if j not in led]
        found += mine
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


@dataclass(slots=True)
class Ranges:
    """Rows of the other side, `rate` apart, for some halves of some tiles; one entry a range.

    Each counts `weight` times. `behind` and `ahead` are how many more rows of the same segment lie
    before and after.
    """

    tile: IntArray
    halves: int
    member: int
    rate: int
    weight: int
    first: IntArray
    count: IntArray
    behind: IntArray
    ahead: IntArray

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
    block: int,
) -> list[Ranges]:
    """What the tiles of a class meet through the branches that cover it, each pair once."""
    w = np.asarray([problem.pattern.branches[i].segment_length for i in branches])
    rates = tuple(problem.pattern.branches[i].dilation_rate for i in branches)
    start = np.asarray([cell.starts[i] for i in branches])
    offset = np.asarray([offsets[i] for i in branches])
    low = start + (halves.first[:, :, None] - start) // w * w
    high = np.minimum(low + w, cell.document_end)
    # All segments of the cell in which the tiles lie begin at one residue.
    residues = tuple(((low[0, 0] + offset) % rates).tolist())
    valid, begin, end, sets = intervals(low, high)
    where = np.argwhere(valid)
    tile, a, b = where[:, 0], begin[*where.T], end[*where.T]
    # A block reads rows of one segment, unless it ends the sequence: 0 is what is read past it.
    known = np.where(high == problem.n, np.iinfo(np.int64).max, (high - low) // block).min(2)
    codes = np.concatenate(
        [
            sets[where[:, 0], where[:, 1]],
            _floor_power(b - a)[:, None],
            np.clip(known[tile], 0, max(rates)),
        ],
        1,
    )
    found: list[Ranges] = []
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    for number, (*members, length, longest0, longest1) in enumerate(unique.tolist()):
        chosen = np.flatnonzero(inverse.reshape(-1) == number)
        by_half = [
            shares(rates, residues, *some, block)
            for some in zip(members, (length, length), (longest0, longest1), strict=True)
        ]
        for half, mine in enumerate(by_half):
            for share in mine:
                both = share in by_half[1 - half]
                if both and half == 1:
                    continue
                first = a[chosen] + (share.residue - a[chosen]) % share.rate
                bottom, top = (x[tile[chosen], half, share.leader] for x in (low, high))
                found.append(
                    Ranges(
                        tile[chosen],
                        3 if both else 1 << half,
                        member,
                        share.rate,
                        share.weight,
                        first,
                        np.maximum(0, -((first - b[chosen]) // share.rate)),
                        (first - bottom) // share.rate,
                        np.maximum(0, -((first - top) // share.rate)),
                    )
                )
    return found


def _floor_power(x: IntArray) -> IntArray:
    """The largest power of two that is not above x, so that few lengths have to be told apart."""
    power: IntArray = 1 << np.floor(np.log2(np.maximum(x, 1))).astype(np.int64)
    return power
