"""Stream tables of a ring: a rank's own tiles by what they wait for, and tiles of received rows.

In the coordinates of `own_problem` a rank's own rows are a sequence, whose tiles `stream_table`
makes. Of these, **early** tiles see no row of another rank, **late** ones do; a late tile streams
its own keys and then the received ones, all of which its rows see or none, as the tile lies
between them. Rows that travel are not hidden by causality otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..typing import IntArray
from .entries import Entries, Views, entries_of, numbered, of_tiles, own_table, reach_of, table_of
from .plan import RankPlan
from .received import EvenSet, Reach, Received, even_sets, received, segments
from .streams import StreamTable


class _Seen(NamedTuple):
    """What the late ones of some programs see of the received rows.

    `late` numbers the programs; those of one code stream the same, that of `reaches[code]`: the
    query head, and for each half which of the received rows of its key/value head.
    """

    late: IntArray
    code: IntArray
    reaches: list[tuple[int, tuple[list[Reach], list[Reach]]]]


def _bounds(plan: RankPlan, table: StreamTable, rows: Received) -> tuple[IntArray, IntArray] | None:
    """(programs, 2, branches): which received rows low:high share a half's segments.

    None where causality hides received rows from some rows of a half only.
    """
    problem = plan.problem
    where = plan.layout.positions(plan.rank)
    group = problem.num_heads // problem.num_kv_heads
    heads, tiles = table.programs.T
    first, count, step = table.tiles[tiles, 0:4:2], table.tiles[tiles, 1:4:2], table.tiles[tiles, 4]
    shape = (len(heads), 2, problem.num_branches)
    low, high = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for head in np.unique(heads).tolist():
        known = rows.positions[head // group]
        for half in range(2):
            mine = np.flatnonzero((heads == head) & (count[:, half] > 0))
            begin = first[mine, half].astype(np.int64)
            at, last = where[begin], where[begin + step[mine] * (count[mine, half] - 1)]
            before = np.searchsorted(known, at)
            if problem.is_causal and (before != np.searchsorted(known, last)).any():
                return None
            for branch, offsets in enumerate(problem.offsets):
                start, end, place = segments(problem, branch, at)
                a, b = np.searchsorted(known, start), np.searchsorted(known, end)
                if problem.is_causal:
                    b = np.minimum(b, before)
                rate = problem.pattern.branches[branch].dilation_rate
                offset = -1 if offsets[head] is None else offsets[head]
                held = (place % rate == offset) & (a < b)
                low[mine, half, branch] = np.where(held, a, 0)
                high[mine, half, branch] = np.where(held, b, 0)
    return low, high


def _seen(plan: RankPlan, table: StreamTable, rows: Received) -> _Seen | None:
    problem = plan.problem
    group = problem.num_heads // problem.num_kv_heads
    bounds = _bounds(plan, table, rows)
    if bounds is None:
        return None
    low, high = bounds
    late = np.flatnonzero((high > low).any((1, 2)))
    columns = [table.programs[late, :1]] + [x[late].reshape(len(late), -1) for x in bounds]
    unique, code = np.unique(np.concatenate(columns, 1), axis=0, return_inverse=True)
    reaches = []
    for head, *flat in unique.tolist():
        ends = np.asarray(flat).reshape(2, 2, problem.num_branches)
        by_half: tuple[list[Reach], list[Reach]] = ([], [])
        for half in range(2):
            for branch, (a, b) in enumerate(ends[:, half].T.tolist()):
                if a < b:
                    known = rows.positions[head // group]
                    by_half[half].append(reach_of(problem, branch, head, known, a, b))
        reaches.append((head, by_half))
    return _Seen(late, code.reshape(-1), reaches)


def _streamed(
    plan: RankPlan, seen: _Seen, rows: Received, views: Views, block: int
) -> list[Entries] | None:
    """The entries of each code; None where received rows do not fill blocks."""
    group = plan.problem.num_heads // plan.problem.num_kv_heads
    known: dict[tuple[int, tuple[Reach, ...]], list[EvenSet] | None] = {}
    found = []
    for head, by_half in seen.reaches:
        kv_head = head // group
        positions, first, step = rows.positions[kv_head], rows.first[kv_head], rows.step[kv_head]
        sets: list[list[EvenSet]] = []
        for reaches in by_half:
            # Heads of a class share their positions.
            key = id(positions), tuple(reaches)
            if key not in known:
                known[key] = even_sets(positions, reaches, block)
            some = known[key]
            if some is None:
                return None
            sets.append(
                [EvenSet(first + step * x.first, step * x.step, x.rows, x.weight) for x in some]
            )
        # The received rows are a sequence of one head, whatever head the tile is of.
        found.append(entries_of((sets[0], sets[1]), views, -kv_head, block))
    return found


def _late_table(
    table: StreamTable,
    seen: _Seen,
    entries: list[Entries],
    views: Views,
    half: int,
    block: int,
    *,
    own: bool,
) -> StreamTable:
    """Tiles of the late programs, each with its entries, after its own ones with `own`."""
    tiles = table.tiles[table.programs[seen.late, 1]].astype(np.int64)
    numbers = np.arange(len(tiles))
    mine = [numbers[seen.code == code] for code in range(len(entries))]
    base = len(table.views) if own else 0
    pieces, edges = ([x.copy() for x in some] for some in zip(*entries, strict=True))
    for x in (*pieces, *edges):
        x[:, 2] += base
    found_pieces, found_edges = [numbered(pieces, mine)], [numbered(edges, mine)]
    if own:
        found_pieces.insert(0, of_tiles(table.pieces.astype(np.int64), tiles[:, 5], tiles[:, 6]))
        found_edges.insert(0, of_tiles(table.edges.astype(np.int64), tiles[:, 7], tiles[:, 8]))
    programs = np.stack([table.programs[seen.late, 0], numbers], 1)
    every = (*(table.views if own else ()), *views.made)
    return table_of(programs, tiles[:, :5], found_pieces, found_edges, every, half, block)


@dataclass(frozen=True, eq=False, slots=True)
class QueryTiles:
    """A rank's query tiles, of the sequence of its own rows and of groups of received rows.

    Args:
        own: all tiles, and their own keys.
        early: those tiles that see no received row, where all rows come in one group; or None.
        late: the others, and their own keys and the received ones; or None.
        groups: for each group of rounds the tiles that see rows of it, and these rows; None where
            there are none, or where `late` has them.
    """

    own: StreamTable
    early: StreamTable | None
    late: StreamTable | None
    groups: tuple[StreamTable | None, ...]


def query_tiles(plan: RankPlan, half: int, block: int) -> QueryTiles | None:
    """Tiles of queries for the keys of all ranks; None where received rows do not fit blocks.

    Where all rows come at once and late tiles are the lesser part of the work, the own keys of late
    tiles wait for the received ones, so that no tile is worked on twice.

    Args:
        plan: of the rank.
        half: most rows of a half tile.
        block: keys that come at a time.
    """
    own = own_table(plan, half, block, keys=False)
    if own is None:
        return None
    groups: list[StreamTable | None] = []
    early = late = None
    for group in range(len(plan.groups)):
        if not plan.received(group):
            groups.append(None)
            continue
        rows = received(plan, group)
        seen = _seen(plan, own, rows)
        if seen is None:
            return None
        if not len(seen.late):
            groups.append(None)
            continue
        views = Views(rows.rows, 1)
        entries = _streamed(plan, seen, rows, views, block)
        if entries is None:
            return None
        rest = replace(own, programs=np.delete(own.programs, seen.late, axis=0), covered=False)
        if len(plan.groups) > 1 or 2 * _blocks(rest) < _blocks(own):
            groups.append(_late_table(own, seen, entries, views, half, block, own=False))
            continue
        groups.append(None)
        late = _late_table(own, seen, entries, views, half, block, own=True)
        # As many views for both, so that one compiled kernel serves them.
        spare = max(0, len(late.views) - len(rest.views))
        early = replace(rest, views=rest.views + rest.views[:1] * spare)
    return QueryTiles(own, early, late, tuple(groups))


def _blocks(table: StreamTable) -> int:
    """Blocks that the programs stream."""
    whole = np.concatenate([[0], np.cumsum(table.pieces[:, 0])])
    tiles = table.tiles[table.programs[:, 1]]
    blocks = whole[tiles[:, 6]] - whole[tiles[:, 5]] + tiles[:, 8] - tiles[:, 7]
    return int(blocks.sum())
