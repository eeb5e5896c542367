"""Key tiles of a ring: a rank's own, by whether their rows travel, and those of received rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..typing import BoolArray, IntArray
from .entries import Entries, Views, entries_of, numbered, own_table, reach_of, table_of
from .plan import RankPlan
from .received import EvenSet, Reach, even_runs, even_sets, received, segments
from .streams import StreamTable


@dataclass(frozen=True, eq=False, slots=True)
class KeyTiles:
    """A rank's own key tiles by whether rows of theirs travel.

    Args:
        kept: tiles of which no row travels.
        sent: the others. Their gradients go to a buffer of their own, a tile after the other.
        places: `row * heads + head` of the rows of the sent tiles.
        slots: their places in that buffer.
    """

    kept: StreamTable
    sent: StreamTable
    places: IntArray
    slots: IntArray


def key_tiles(plan: RankPlan, half: int, block: int) -> KeyTiles | None:
    """The rank's own key tiles, for its own queries."""
    table = own_table(plan, half, block, keys=True)
    if table is None:
        return None
    heads = plan.problem.num_kv_heads
    travels = np.zeros((plan.layout.lengths[plan.rank], heads), dtype=np.bool_)
    for planned in plan.rounds:
        if planned.sent is not None:
            for key_class, rows in zip(plan.classes, planned.sent.rows, strict=True):
                travels[np.ix_(rows, np.asarray(key_class.heads))] = True
    head, at, inside = _rows_of(table, half)
    sent = np.any(travels[np.where(inside, at, 0), head[:, None]] & inside, axis=1)
    places = at * heads + head[:, None]
    number = np.cumsum(sent) - 1
    slots = number[:, None] * 2 * half + np.arange(2 * half)
    chosen = inside & sent[:, None]
    return KeyTiles(
        replace(table, programs=table.programs[~sent], covered=False),
        replace(table, programs=table.programs[sent], covered=False),
        places[chosen],
        slots[chosen],
    )


def _rows_of(table: StreamTable, half: int) -> tuple[IntArray, IntArray, BoolArray]:
    """(head, rows, which are real) of every program: (P,), (P, 2 half), (P, 2 half)."""
    head, tile = table.programs.T.astype(np.int64)
    first0, rows0, first1, rows1, step = (
        x[:, None] for x in table.tiles[tile, :5].T.astype(np.int64)
    )
    number = np.arange(half)
    at = np.concatenate([first0 + step * number, first1 + step * number], 1)
    inside = np.concatenate([number < rows0, number < rows1], 1)
    return head, at, inside


def received_key_tiles(plan: RankPlan, group: int, half: int, block: int) -> StreamTable | None:
    """Tiles of the rows received in a group, past which the rank's own queries stream.

    Their programs bear the key/value head, their rows are places in the sequence of received rows.
    None where the queries do not fill blocks.
    """
    problem = plan.problem
    rows = received(plan, group)
    where = plan.layout.positions(plan.rank)
    members = problem.num_heads // problem.num_kv_heads
    views = Views(len(where), 0)
    known: dict[tuple[Reach, ...], list[EvenSet] | None] = {}
    tiles: list[IntArray] = []
    programs: list[tuple[int, int]] = []
    pieces: list[IntArray] = []
    edges: list[IntArray] = []
    for kv_head, positions in enumerate(rows.positions):
        if not len(positions):
            continue
        low, high = _query_bounds(plan, kv_head, positions)
        codes = np.concatenate([low.reshape(len(low), -1), high.reshape(len(low), -1)], 1)
        unique, code = np.unique(codes, axis=0, return_inverse=True)
        for number, flat in enumerate(unique.tolist()):
            bounds = np.asarray(flat).reshape(2, members, problem.num_branches)
            found: list[Entries] = []
            for member in range(members):
                head = kv_head * members + member
                reaches = [
                    reach_of(problem, branch, head, where, a, b)
                    for branch, (a, b) in enumerate(bounds[:, member].T.tolist())
                    if a < b
                ]
                if tuple(reaches) not in known:
                    known[tuple(reaches)] = even_sets(where, reaches, block)
                sets = known[tuple(reaches)]
                if sets is None:
                    return None
                found.append(entries_of((sets, sets), views, member, block))
            mine = _tiles_of(np.flatnonzero(code.reshape(-1) == number), half)
            base = len(programs)
            programs += [(kv_head, base + i) for i in range(len(mine))]
            first, step = rows.first[kv_head], rows.step[kv_head]
            scale, shift = np.asarray([step, 1, step, 1, step]), np.asarray([first, 0, first, 0, 0])
            tiles.append(mine * scale + shift)
            both = [np.concatenate(some) for some in zip(*found, strict=True)]
            numbers = [base + np.arange(len(mine))]
            pieces.append(numbered(both[:1], numbers))
            edges.append(numbered(both[1:], numbers))
    if not programs:
        return None
    return table_of(
        np.asarray(programs), np.concatenate(tiles), pieces, edges, tuple(views.made), half, block
    )


def _query_bounds(plan: RankPlan, kv_head: int, positions: IntArray) -> tuple[IntArray, IntArray]:
    """(rows, members, branches): which own rows low:high share a received row's segments."""
    problem = plan.problem
    where = plan.layout.positions(plan.rank)
    members = problem.num_heads // problem.num_kv_heads
    shape = (len(positions), members, problem.num_branches)
    low, high = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for branch, offsets in enumerate(problem.offsets):
        start, end, place = segments(problem, branch, positions)
        if problem.is_causal:
            start = np.maximum(start, positions)
        a, b = np.searchsorted(where, start), np.searchsorted(where, end)
        rate = problem.pattern.branches[branch].dilation_rate
        for member in range(members):
            offset = offsets[kv_head * members + member]
            held = (place % rate == (-1 if offset is None else offset)) & (a < b)
            low[:, member, branch] = np.where(held, a, 0)
            high[:, member, branch] = np.where(held, b, 0)
    return low, high


def _tiles_of(rows: IntArray, half: int) -> IntArray:
    """(T, 5) tiles of rows that stream the same, evenly spaced ones together."""
    found = []
    for first, count, step in even_runs(rows):
        for at in range(0, count, 2 * half):
            mine = min(half, count - at)
            other = min(half, count - at - mine)
            begin = first + at * step
            found.append((begin, mine, begin + mine * step if other else begin, other, step))
    return np.asarray(found, dtype=np.int64).reshape(-1, 5)
