"""Tiles for kernels that meet one part of the keys of a ring: a rank's own rows, or a piece.

Own rows of one head that the same runs hold are a class; a tile is up to `block` of them that step
evenly, both in storage and in position. All rows of a tile see the same runs, so for each run the
tile needs the run's rows of the other side, as pieces that step evenly as well. Rows of ordinary
layouts step evenly almost everywhere; any other order works, in more and shorter pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .classes import progressions
from .problem import Problem
from .rows import Rows
from .runs import Run, RunList

Int32Array = npt.NDArray[np.int32]
Side = Literal["query", "key"]

PROGRAM_COLUMNS, TILE_COLUMNS, ENTRY_COLUMNS = 4, 8, 12
# Of a longer period most residues hold one row of a shard.
_LONGEST_PERIOD = 1 << 12


@dataclass(frozen=True, eq=False, slots=True)
class PartTable:
    """What one kernel launch does with a part.

    Args:
        programs: (P, 4) of (own head, first other head, tile, part): on the query side the query
            head and its key/value head's place in the part, on the key side that place and the
            first query head of the key/value head.
        tiles: (T, 8) of (first row, row step, rows, first position, position step, lane, first
            entry, last entry + 1); rows are numbers in the own side's storage.
        entries: (E, 12) of (first row, row step, rows, full_begin, full_end, first position,
            position step, start of the segment, dilation rate, branch, member, 0): rows of the
            other side. Pairs with rows full_begin:full_end are all visible, others need the masks
            (causality, end of range). Members are the query heads of a key/value head.
    """

    programs: Int32Array
    tiles: Int32Array
    entries: Int32Array


class _Piece(NamedTuple):
    """Rows that step evenly in storage and in position."""

    row: int
    row_step: int
    position: int
    step: int
    rows: int


def _even(*columns: IntArray) -> Iterator[tuple[int, int]]:
    """Cut rows into stretches begin:end over which every column steps evenly.

    The first column names a class: a stretch stays within one, so there its step is 0.
    """
    count = len(columns[0])
    if count == 0:
        return
    steps = np.stack([np.diff(column) for column in columns])
    changes = np.flatnonzero((steps[:, 1:] != steps[:, :-1]).any(0)) + 1
    ends = np.append(changes, count - 1)
    begin = number = 0
    while begin < count:
        while number < len(ends) - 1 and ends[number] <= begin:
            number += 1
        alone = begin == count - 1 or steps[0, begin] != 0
        end = begin + 1 if alone else int(ends[number]) + 1
        yield begin, end
        begin = end


def _pieces(run: Run, rows: Rows, x: Rows, rate: int) -> list[_Piece]:
    """The run's rows of one side as pieces."""
    base = run.segment + run.offset
    if rows.array is None and x.array is None:
        return [_Piece(rows.start, rows.step, base + x.start * rate, x.step * rate, len(rows))]
    at, numbers = rows.asarray(), x.asarray()
    found = []
    for begin, end in _even(np.zeros_like(at), at, numbers):
        row_step, x_step = (
            int(column[begin + 1] - column[begin]) if end - begin > 1 else 1
            for column in (at, numbers)
        )
        first = base + int(numbers[begin]) * rate
        found.append(_Piece(int(at[begin]), row_step, first, x_step * rate, end - begin))
    return found


def _entry(
    piece: _Piece, run: Run, rate: int, member: int, side: Side, first: int, last: int, other: int
) -> tuple[int, ...] | None:
    """A piece of the other side for a tile with positions first..last; None where none is seen."""
    row, row_step, position, step, rows = piece
    full_begin, full_end = 0, rows
    if run.masked and side == "query":
        # Keys up to the tile's last query are seen by some, up to its first by all.
        rows = min(max((last - position) // step + 1, 0), rows)
        full_end = min(max((first - position) // step + 1, 0), rows)
    elif run.masked:
        # Queries from the tile's first key on see some, from its last on all.
        skipped = min(max(-((position - first) // step), 0), rows)
        row, position, rows = row + skipped * row_step, position + skipped * step, rows - skipped
        full_begin, full_end = min(max(-((position - last) // step), 0), rows), rows
    if rows == 0:
        return None
    full_begin = min(-(-full_begin // other) * other, rows)
    full_end = max(full_begin, full_end // other * other)
    numbers = (row, row_step, rows, full_begin, full_end, position, step)
    return (*numbers, run.segment, rate, run.branch, member, 0)


class _Slot(NamedTuple):
    """Runs that no row of a head is in twice: those of one branch, and one member."""

    branch: int
    member: int


Kind = tuple[tuple[int, int], ...]


def _kinds(
    problem: Problem, runs: tuple[Run, ...], side: Side
) -> dict[Kind, list[tuple[int, int]]]:
    """Heads of equal runs: {(run, member) pairs: [(own head, first other head)]}."""
    group = problem.num_heads // problem.num_kv_heads
    held: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, run in enumerate(runs):
        pairs = zip(run.heads.query.asarray(), run.heads.key.asarray(), strict=True)
        for head, place in ((int(h), int(p)) for h, p in pairs):
            if side == "query":
                held.setdefault((head, place), []).append((number, 0))
            else:
                first = head // group * group
                held.setdefault((place, first), []).append((number, head - first))
    kinds: dict[Kind, list[tuple[int, int]]] = {}
    for heads, members in held.items():
        kinds.setdefault(tuple(members), []).append(heads)
    return kinds


def _labels(
    runs: tuple[Run, ...], rates: tuple[int, ...], kind: Kind, side: Side
) -> tuple[IntArray, IntArray, IntArray, dict[_Slot, IntArray]]:
    """(rows, positions, classes) of the rows in some run, by class and position; runs by slot."""
    sides = [(runs[i].query, runs[i].query_x) for i, _ in kind]
    if side == "key":
        sides = [(runs[i].key, runs[i].key_x) for i, _ in kind]
    size = 1 + max(int(rows.asarray().max()) for rows, _ in sides)
    position = np.zeros(size, dtype=np.int64)
    slots: dict[_Slot, IntArray] = {}
    for (number, member), (rows, x) in zip(kind, sides, strict=True):
        run = runs[number]
        at = rows.asarray()
        label = slots.setdefault(_Slot(run.branch, member), np.full(size, -1, dtype=np.int64))
        label[at] = number
        position[at] = run.segment + run.offset + x.asarray() * rates[run.branch]
    classes = np.zeros(size, dtype=np.int64)
    for label in slots.values():
        _, classes = np.unique(classes * (len(runs) + 1) + label + 1, return_inverse=True)
    some = np.flatnonzero(np.logical_or.reduce([label >= 0 for label in slots.values()]))
    period = math.lcm(*(rates[runs[number].branch] for number, _ in kind))
    classes = _even_classes(classes[some], position[some], period)
    order = np.lexsort((position[some], classes))
    return some[order], position[some][order], classes[order], slots


def _even_classes(classes: IntArray, positions: IntArray, period: int) -> IntArray:
    """Classes cut so that the residues of each step evenly, and its rows with them in the main.

    Rows of the first of the rates 1 and 8 alone would step 1, 1, 1, 1, 1, 1, 2 otherwise.
    """
    if period > _LONGEST_PERIOD:
        return classes
    cut = np.zeros_like(classes)
    order = np.argsort(classes, kind="stable")
    known: dict[bytes, IntArray] = {}
    for mine in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
        residues = positions[mine] % period
        held = np.zeros(period, dtype=np.bool_)
        held[residues] = True
        piece = known.get(held.tobytes())
        if piece is None:
            piece = known[held.tobytes()] = np.zeros(period, dtype=np.int64)
            for i, (first, step) in enumerate(progressions(held)):
                piece[first::step] = i
        cut[mine] = piece[residues]
    return classes * period + cut


def _kind_tiles(
    problem: Problem,
    runs: tuple[Run, ...],
    kind: Kind,
    side: Side,
    block: int,
    other: int,
    lane: int,
    made: int,
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Tiles of one kind of head, and their entries, numbered from `made` on."""
    rates = tuple(branch.dilation_rate for branch in problem.pattern.branches)
    rows, positions, classes, slots = _labels(runs, rates, kind, side)
    tiles: list[tuple[int, ...]] = []
    entries: list[tuple[int, ...]] = []
    ranges: dict[tuple[int, ...], tuple[int, int]] = {}
    for begin, end in _even(classes, rows, positions):
        held = [(slot, int(label[rows[begin]])) for slot, label in slots.items()]
        held = [(slot, number) for slot, number in held if number >= 0]
        masked = any(runs[number].masked for _, number in held)
        row_step, step = 1, 1
        if end - begin > 1:
            row_step = int(rows[begin + 1] - rows[begin])
            step = int(positions[begin + 1] - positions[begin])
        for at in range(begin, end, block):
            last = min(at + block, end) - 1
            key = tuple(number for _, number in held)
            if masked or key not in ranges:
                here = (int(positions[at]), int(positions[last]))
                start = made + len(entries)
                for slot, number in held:
                    run = runs[number]
                    pieces = _pieces(run, run.query, run.query_x, rates[slot.branch])
                    if side == "query":
                        pieces = _pieces(run, run.key, run.key_x, rates[slot.branch])
                    for piece in pieces:
                        found = _entry(
                            piece, run, rates[slot.branch], slot.member, side, *here, other
                        )
                        if found is not None:
                            entries.append(found)
                ranges[key] = (start, made + len(entries))
            numbers = (int(rows[at]), row_step, last - at + 1, int(positions[at]), step, lane)
            tiles.append((*numbers, *ranges[key]))
    # Classes of neighbouring rows side by side: they read the same keys.
    tiles.sort(key=lambda tile: tile[3])
    return tiles, entries


def _groups(runs: RunList, branches: int | None) -> list[tuple[tuple[Run, ...], int]]:
    """Runs that share tiles, and their lane: all of them, or those of each branch."""
    if branches is None:
        return [(tuple(runs), 0)]
    return [(tuple(runs.of_branch(i)), i) for i in range(branches)]


@lru_cache(maxsize=256)
def part_table(
    problem: Problem,
    runs: tuple[RunList, ...],
    side: Side,
    block: int,
    other: int,
    *,
    lanes: bool = False,
) -> PartTable:
    """The tiles of one side for the runs of some parts, which share no query head.

    Args:
        problem: what is computed.
        runs: which rows meet which, for each part; a plan's, which keeps them.
        side: whose rows the tiles are.
        block: rows of a tile.
        other: rows that a kernel takes from the other side at a time.
        lanes: each branch has tiles of its own, and its number as their lane.
    """
    programs: list[tuple[int, ...]] = []
    tiles: list[tuple[int, ...]] = []
    entries: list[tuple[int, ...]] = []
    for part, found in enumerate(runs):
        for members, lane in _groups(found, problem.num_branches if lanes else None):
            for kind, heads in _kinds(problem, members, side).items():
                some, more = _kind_tiles(
                    problem, members, kind, side, block, other, lane, len(entries)
                )
                numbers = range(len(tiles), len(tiles) + len(some))
                programs.extend((*head, i, part) for head in heads for i in numbers)
                tiles.extend(some)
                entries.extend(more)

    def array(rows: list[tuple[int, ...]], columns: int) -> Int32Array:
        return np.asarray(rows, dtype=np.int32).reshape(-1, columns)

    return PartTable(
        array(programs, PROGRAM_COLUMNS),
        array(tiles, TILE_COLUMNS),
        array(entries, ENTRY_COLUMNS),
    )
