"""What a producer streams past each tile: the keys of its queries, or the queries of its keys.

A tile is two **halves** of up to `half` evenly spaced rows of one head that the same branches
select; the rows of a half share a segment in each of them. The other side comes in blocks of
`block` rows: **pieces** of whole blocks that every row of both halves sees, then **edges**, single
blocks of which some rows are not for all: ends of ranges, the causal diagonal, or what only one
half sees. A pair that several branches hold comes once, with its multiplicity as the weight of
its piece or edge (`sharing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .classes import Cell, Offsets, cells, row_classes
from .halves import Halves, cut
from .problem import Problem
from .sharing import Ranges, ranges_of

Int32Array = npt.NDArray[np.int32]

# Bits of an edge's halves: causality hides nothing of it; with WHOLE << h half h sees all its rows.
FREE = 4
WHOLE = 8


class View(NamedTuple):
    """Rows `residue + rate * i`, `residue < residues` and `i < rows`, of a sequence.

    `source` is 0 for the sequence whose tiles they are for, 1 for rows received beside it.
    """

    rate: int
    residues: int
    rows: int
    source: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class StreamTable:
    """Tiles of all heads on one side, and their streams.

    Args:
        programs: (P, 2) of (head, tile), in launch order.
        tiles: (T, 13) of (first row, rows) of each half, step, then (begin, end) of its pieces and
            (begin, end) of its edges, for each half the end of those of its edges that come
            before the first that is not for it, and for each half the end of those that come before
            all others and of which it sees all rows; one half of a tile at most has such edges.
        pieces: (N, 8) of (blocks, weight, view, member, residue, row, rate, 0). Row x of block j is
            row `row + j * block + x` of the residue modulo the rate; each counts `weight` times.
        edges: (M, 8) of (first position, rate, view, weight, halves, begin, end, member). Of the
            block's positions those in begin:end count, for the halves whose bit is set, less what
            causality hides; nothing where the bit FREE is set. With the bit `WHOLE << half` a half
            sees the whole block.
        views: what the streams are read through.
        covered: every row of every head is in some tile; others see no key.
        executed: pairs that a kernel computes that works in whole blocks.
    """

    programs: Int32Array
    tiles: Int32Array
    pieces: Int32Array
    edges: Int32Array
    views: tuple[View, ...]
    covered: bool
    executed: int


def views(problem: Problem) -> tuple[View, ...]:
    """What a tensor is read through: one view a rate, two where it does not divide n.

    A residue has n // r rows or one more then.
    """
    found = []
    for rate in sorted({b.dilation_rate for b in problem.pattern.branches}):
        rows, longer = divmod(problem.n, rate)
        if rows:
            found.append(View(rate, rate, rows))
        if longer:
            found.append(View(rate, longer, rows + 1))
    return tuple(found)


@dataclass(slots=True)
class _Streams:
    """Pieces and edges as they are found, each with the number of its tile."""

    problem: Problem
    block: int
    views: tuple[View, ...]
    pieces: list[IntArray] = field(default_factory=list)
    edges: list[IntArray] = field(default_factory=list)

    def _view(self, first: IntArray, rate: int) -> IntArray:
        mine = [i for i, view in enumerate(self.views) if view.rate == rate]
        longer = self.problem.n % rate
        return np.where(first % rate < longer, mine[-1], mine[0])

    def _add_pieces(
        self, ranges: Ranges, base: int, chosen: IntArray, skipped: IntArray, blocks: IntArray
    ) -> None:
        if not len(chosen):
            return
        first = ranges.first[chosen] + skipped * ranges.rate
        rate, weight, member = (
            np.full_like(first, x) for x in (ranges.rate, ranges.weight, ranges.member)
        )
        view = self._view(first, ranges.rate)
        row, residue = np.divmod(first, ranges.rate)
        tile = base + ranges.tile[chosen]
        columns = [tile, blocks, weight, view, member, residue, row, rate, np.zeros_like(first)]
        self.pieces.append(np.stack(columns, 1))

    def _add_edges(
        self,
        ranges: Ranges,
        base: int,
        halves: Halves,
        begin: IntArray,
        end: IntArray,
        keys: bool,
    ) -> None:
        """Blocks for rows begin:end of every range."""
        blocks = np.maximum(0, -((begin - end) // self.block))
        chosen = np.repeat(np.arange(len(blocks)), blocks)
        if not len(chosen):
            return
        number = np.arange(len(chosen)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        at = begin[chosen] + number * self.block
        stop = np.minimum(at + self.block, end[chosen])
        # Read within the segment where it is long enough: hidden rows may hold anything.
        latest = ranges.ahead[chosen] - self.block
        read = np.minimum(at, np.maximum(latest, -ranges.behind[chosen]))
        first = ranges.first[chosen] + read * ranges.rate
        low = ranges.first[chosen] + at * ranges.rate
        high = ranges.first[chosen] + (stop - 1) * ranges.rate + 1
        who = np.full_like(first, ranges.halves)
        tile = ranges.tile[chosen]
        whole = (read == at) & (stop == at + self.block)
        for half in range(2):
            all_seen = whole
            if self.problem.is_causal:
                some, every = halves.first[tile, half], halves.last[tile, half]
                if not keys:
                    some, every = every, some
                sees = high > some if keys else low <= some
                who &= np.where(sees, -1, ~(1 << half))
                all_seen = whole & (low >= every if keys else high <= every + 1)
            who |= np.where(all_seen & (who >> half & 1 > 0), WHOLE << half, 0)
        rate, weight, member = (
            np.full_like(first, x) for x in (ranges.rate, ranges.weight, ranges.member)
        )
        view = self._view(first, ranges.rate)
        columns = [base + ranges.tile[chosen], first, rate, view, weight, who, low, high, member]
        rows = np.stack(columns, 1)
        self.edges.append(rows[who & 3 > 0])

    def add(self, ranges: Ranges, base: int, halves: Halves, keys: bool) -> None:
        """Divide ranges into pieces and edges; the tiles are numbered from `base`."""
        begin, end = np.zeros_like(ranges.count), ranges.count
        seen = np.asarray([bool(ranges.halves >> half & 1) for half in range(2)])
        full_begin, full_end = begin, end
        if self.problem.is_causal:
            tile = ranges.tile
            earliest = np.where(seen, halves.first[tile], np.iinfo(np.int64).max).min(1)
            latest = np.where(seen, halves.last[tile], -1).max(1)
            if keys:
                begin = ranges.before(earliest)
                mixed = ranges.before(latest) - begin
                full_begin = np.minimum(end, begin - -mixed // self.block * self.block)
            else:
                end = ranges.before(latest + 1)
                full_end = ranges.before(earliest + 1)
        blocks = np.maximum(0, full_end - full_begin) // self.block
        if ranges.halves != 3:
            blocks = np.zeros_like(blocks)
        chosen = np.flatnonzero(blocks)
        self._add_pieces(ranges, base, chosen, full_begin[chosen], blocks[chosen])
        full_end = full_begin + blocks * self.block
        self._add_edges(ranges, base, halves, begin, np.minimum(full_begin, end), keys)
        self._add_edges(ranges, base, halves, full_end, end, keys)


def collect(columns: list[IntArray], tiles: int) -> tuple[IntArray, IntArray]:
    """Rows sorted by tile, without their tile, and (tiles + 1,) where each tile's rows begin."""
    rows = np.concatenate(columns) if columns else np.zeros((0, 9), dtype=np.int64)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[:, 1:], np.searchsorted(rows[:, 0], np.arange(tiles + 1))


def ordered(edges: IntArray, bounds: IntArray) -> tuple[IntArray, IntArray]:
    """Edges of each tile in the order in which they stream.

    First those that one half sees whole, and the other in part, of the half that sees more of them
    so; then the others of both halves; then those of one half by turns with the other's.

    Args:
        edges: (M, 8), sorted by tile.
        bounds: (tiles + 1,) where each tile's edges begin.

    Returns:
        Edges, and (tiles, 4): for each half where the first edge comes that is not for it, or the
        tile's end; then for each half the end of the first kind, the tile's begin for one of them.
    """
    tiles = len(bounds) - 1
    tile = np.repeat(np.arange(tiles), np.diff(bounds))
    who = edges[:, 4] & 3
    turn = np.zeros(len(edges), dtype=np.int64)
    for half in (1, 2, 3):
        mine = np.flatnonzero(who == half)
        first = np.searchsorted(tile[mine], tile[mine], side="left")
        turn[mine] = np.arange(len(mine)) - first
    whole = [(who == 3) & (edges[:, 4] & WHOLE << half > 0) for half in range(2)]
    count = [np.bincount(tile[some], minlength=tiles) for some in whole]
    later = count[1] > count[0]
    kind = np.where(np.where(later[tile], whole[1], whole[0]), 0, np.where(who == 3, 1, 2))
    order = np.lexsort((who, turn, kind, tile))
    ends = np.empty((tiles, 4), dtype=np.int64)
    for half in range(2):
        foreign = np.flatnonzero(~(who[order] >> half & 1).astype(bool))
        first = np.append(foreign, len(edges))[np.searchsorted(foreign, bounds[:-1])]
        ends[:, half] = np.minimum(first, bounds[1:])
        ends[:, 2 + half] = bounds[:-1] + np.where(later == bool(half), count[half], 0)
    return edges[order], ends


def _alike(
    rates: tuple[int, ...], phases: tuple[int, ...], members: tuple[Offsets, ...], cell: Cell
) -> dict[tuple[int, tuple[bool, ...]], list[int]]:
    """First rows of the cell's classes, by their step and by what covers them."""
    found: dict[tuple[int, tuple[bool, ...]], list[int]] = {}
    for first, step, used in row_classes(rates, phases, members):
        if cell.begin + first < cell.end:
            found.setdefault((step, used), []).append(first)
    return found


@lru_cache(maxsize=64)
def stream_table(problem: Problem, half: int, block: int, *, keys: bool = False) -> StreamTable:
    """Tiles of all heads with what streams past them.

    Args:
        problem: what is computed; torchscale's row shift is not covered.
        half: most rows of a half tile.
        block: rows of the other side that come at a time.
        keys: tiles of key rows for key/value heads; of query rows for query heads otherwise.

    Raises:
        ValueError: the pattern shifts rows, which this table cannot say.
    """
    if problem.pattern.shift_rows:
        raise ValueError("stream tables do not cover torchscale's row shift")
    group = problem.num_heads // problem.num_kv_heads if keys else 1
    by_head = list(zip(*problem.offsets, strict=True))
    rates = tuple(branch.dilation_rate for branch in problem.pattern.branches)
    streams = _Streams(problem, block, views(problem))
    kinds: dict[tuple[Offsets, ...], tuple[int, int]] = {}
    tiles: list[IntArray] = []
    made, covered = 0, True
    for head in range(problem.num_heads // group):
        members = tuple(by_head[head * group : (head + 1) * group])
        if members in kinds:
            continue
        begin = made
        for cell in cells(problem):
            phases = tuple((cell.begin - s) % r for s, r in zip(cell.starts, rates, strict=True))
            for (step, used), firsts in _alike(rates, phases, members, cell).items():
                lanes = [divmod(lane, len(rates)) for lane, x in enumerate(used) if x]
                if not lanes:
                    covered = False
                    continue
                selected = sorted({branch for _, branch in lanes})
                halves = cut(problem, cell, firsts, step, selected, half)
                for member in range(group):
                    branches = [branch for m, branch in lanes if m == member]
                    if not branches:
                        continue
                    offsets = members[member]
                    for ranges in ranges_of(
                        problem, cell, halves, offsets, branches, member, block
                    ):
                        streams.add(ranges, made, halves, keys)
                steps = np.full(len(halves.first), step)
                columns = [halves.first[:, 0], halves.rows[:, 0]]
                columns += [halves.first[:, 1], halves.rows[:, 1], steps]
                tiles.append(np.stack(columns, 1))
                made += len(halves.first)
        kinds[members] = (begin, made)
    return _assemble(problem, streams, tiles, made, kinds, group, half, covered)


def _assemble(
    problem: Problem,
    streams: _Streams,
    tiles: list[IntArray],
    made: int,
    kinds: dict[tuple[Offsets, ...], tuple[int, int]],
    group: int,
    half: int,
    covered: bool,
) -> StreamTable:
    pieces, piece_bounds = collect(streams.pieces, made)
    edges, edge_bounds = collect(streams.edges, made)
    edges, ends = ordered(edges, edge_bounds)
    rows = np.concatenate(tiles) if tiles else np.zeros((0, 5), dtype=np.int64)
    whole = np.concatenate([[0], np.cumsum(pieces[:, 0])])
    work = np.diff(whole[piece_bounds]) + np.diff(edge_bounds)
    used = np.concatenate([[0], np.cumsum((edges[:, 4] & 1) + (edges[:, 4] >> 1 & 1))])
    halves_worked = 2 * np.diff(whole[piece_bounds]) + np.diff(used[edge_bounds])
    # Tiles that read the same rows side by side, for the cache; heavy ones first among them.
    span = 2 * half * int(rows[:, 4].max()) if len(rows) else 1
    by_head = list(zip(*problem.offsets, strict=True))
    programs, executed = [], 0
    for head in range(problem.num_heads // group):
        begin, end = kinds[tuple(by_head[head * group : (head + 1) * group])]
        order = begin + np.lexsort((-work[begin:end], rows[begin:end, 0] // span))
        programs.append(np.stack([np.full_like(order, head), order], 1))
        executed += int(halves_worked[begin:end].sum()) * half * streams.block
    bounds = [piece_bounds[:-1], piece_bounds[1:], edge_bounds[:-1], edge_bounds[1:]]
    return StreamTable(
        np.concatenate(programs).astype(np.int32),
        np.concatenate([rows, np.stack(bounds, 1), ends], 1).astype(np.int32),
        pieces.astype(np.int32),
        edges.astype(np.int32),
        streams.views,
        covered,
        executed,
    )


def shortest_range(problem: Problem) -> int:
    """Fewest rows of one residue in a segment that does not end the sequence.

    A block that is longer reads rows of the next segment, which it hides but whose infinities and
    NaNs would spread.
    """
    fewest = problem.n
    bounds = problem.cu_seqlens or (0, problem.n)
    for start, end in pairwise(bounds):
        for branch in problem.pattern.branches:
            w, rate = branch.segment_length, branch.dilation_rate
            if end - start > w:
                fewest = min(fewest, w // rate)
            last = (end - start - 1) % w + 1
            if end > start and end < problem.n:
                fewest = min(fewest, last // rate)
    return fewest
