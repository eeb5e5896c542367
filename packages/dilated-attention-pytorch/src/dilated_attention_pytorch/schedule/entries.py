"""Entries of stream tables for sets of evenly spaced rows, all of which count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..typing import IntArray
from .plan import RankPlan
from .problem import Problem
from .received import EvenSet, Reach, segments
from .streams import FREE, WHOLE, StreamTable, View, collect, ordered, stream_table


class Entries(NamedTuple):
    """Pieces and edges of a set of tiles that stream the same."""

    pieces: IntArray
    edges: IntArray


class Views:
    """Views of a sequence of rows, made as they are asked for."""

    def __init__(self, rows: int, source: int) -> None:
        self._rows, self._source = rows, source
        self.made: list[View] = []

    def of(self, first: int, rate: int, last: int) -> int:
        """Number of a view for rows first, first + rate, …, last."""
        rows, longer = divmod(self._rows, rate)
        view = View(rate, rate, rows, self._source)
        if last // rate >= rows:
            view = View(rate, longer, rows + 1, self._source)
        if view not in self.made:
            self.made.append(view)
        return self.made.index(view)


def entries_of(
    by_half: tuple[list[EvenSet], list[EvenSet]], views: Views, member: int, block: int
) -> Entries:
    """Pieces for the sets of both halves, edges for what is left."""
    pieces: list[tuple[int, ...]] = []
    edges: list[tuple[int, ...]] = []
    for half, sets in enumerate(by_half):
        for found in sets:
            both = found in by_half[1 - half]
            if both and half == 1:
                continue
            first, rate, count, weight = found
            view = views.of(first, rate, first + (count - 1) * rate)
            blocks = count // block if both else 0
            if blocks:
                row, residue = divmod(first, rate)
                pieces.append((blocks, weight, view, member, residue, row, rate, 0))
            mine = 3 if both else 1 << half
            for at in range(blocks * block, count, block):
                who = FREE | mine | (WHOLE * mine if at + block <= count else 0)
                read = first + min(at, count - block) * rate
                low = first + at * rate
                high = first + (min(at + block, count) - 1) * rate + 1
                edges.append((read, rate, view, weight, who, low, high, member))

    def array(rows: list[tuple[int, ...]]) -> IntArray:
        return np.asarray(rows, dtype=np.int64).reshape(-1, 8)

    return Entries(array(pieces), array(edges))


def numbered(rows: list[IntArray], tiles: list[IntArray]) -> IntArray:
    """Rows of entries for groups of tiles, each with the number of its tile."""
    found = [np.zeros((0, 9), dtype=np.int64)]
    for entries, mine in zip(rows, tiles, strict=True):
        found.append(
            np.concatenate(
                [np.repeat(mine, len(entries))[:, None], np.tile(entries, (len(mine), 1))], 1
            )
        )
    return np.concatenate(found)


def of_tiles(entries: IntArray, begin: IntArray, end: IntArray) -> IntArray:
    """Entries begin:end of each tile, each with the number of its tile."""
    count = end - begin
    tile = np.repeat(np.arange(len(count)), count)
    at = np.arange(len(tile)) - np.repeat(np.cumsum(count) - count, count) + begin[tile]
    return np.concatenate([tile[:, None], entries[at]], 1)


def table_of(
    programs: IntArray,
    rows: IntArray,
    pieces: list[IntArray],
    edges: list[IntArray],
    views: tuple[View, ...],
    half: int,
    block: int,
) -> StreamTable:
    """A table of tiles with rows (T, 5) and entries that bear the number of their tile.

    Views that no entry reads through are left out.
    """
    some_pieces, piece_bounds = collect(pieces, len(rows))
    some_edges, edge_bounds = collect(edges, len(rows))
    some_edges, ends = ordered(some_edges, edge_bounds)
    used = np.unique(np.concatenate([some_pieces[:, 2], some_edges[:, 2]]))
    some_pieces[:, 2] = np.searchsorted(used, some_pieces[:, 2])
    some_edges[:, 2] = np.searchsorted(used, some_edges[:, 2])
    bounds = [piece_bounds[:-1], piece_bounds[1:], edge_bounds[:-1], edge_bounds[1:]]
    halves = np.concatenate([[0], np.cumsum((some_edges[:, 4] & 1) + (some_edges[:, 4] >> 1 & 1))])
    whole = np.concatenate([[0], np.cumsum(some_pieces[:, 0])])
    worked = 2 * np.diff(whole[piece_bounds]) + np.diff(halves[edge_bounds])
    return StreamTable(
        programs.astype(np.int32),
        np.concatenate([rows, np.stack(bounds, 1), ends], 1).astype(np.int32),
        some_pieces.astype(np.int32),
        some_edges.astype(np.int32),
        tuple(views[i] for i in used.tolist()),
        covered=False,
        executed=int(worked[programs[:, 1]].sum()) * half * block,
    )


def reach_of(
    problem: Problem, branch: int, head: int, positions: IntArray, low: int, high: int
) -> Reach:
    """Rows low:high of one segment as the branch and query head hold them."""
    rate = problem.pattern.branches[branch].dilation_rate
    offset = problem.offsets[branch][head]
    assert offset is not None
    start, _, _ = segments(problem, branch, positions[low : low + 1])
    return Reach(low, high, rate, (int(start[0]) + offset) % rate)


def own_table(plan: RankPlan, half: int, block: int, *, keys: bool) -> StreamTable | None:
    """The tiles of a rank's own rows for its own keys; None where these are no sequence."""
    problem = plan.own_problem()
    return None if problem is None else stream_table(problem, half, block, keys=keys)
