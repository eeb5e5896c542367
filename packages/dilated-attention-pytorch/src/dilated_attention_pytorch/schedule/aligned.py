"""Deterministic order: tiles cut at fixed global places, met in ascending key order.

Each (branch, segment, offset) is cut into tiles of `block` rows counted from the segment's start.
Whatever the split over ranks, every query row meets the same key tiles, in the order of the
position at which a tile ends (ties: branch), so that sums are bitwise equal for every ring size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..typing import BoolArray, IntArray
from .heads import KeyClass
from .problem import Problem
from .rows import Rows
from .runs import Run


@dataclass(frozen=True, slots=True)
class AlignedTile:
    """A tile of fixed shape: `run`'s rows stand in it at the given places, the rest is zero."""

    run: Run
    rows: int
    query_place: Rows
    key_place: Rows
    end: int


def tile_rows(problem: Problem, branch: int, block: int) -> int:
    """Rows of a tile of this branch: `block`, or all that a segment has where that is less."""
    w, r = problem.segment_length(branch), problem.pattern.branches[branch].dilation_rate
    return min(block, -(-w // r))


def _last_rows(problem: Problem, branch: int, segment: IntArray, offset: IntArray) -> IntArray:
    """Number x of the last row of each (segment, offset) that exists."""
    w, r = problem.segment_length(branch), problem.pattern.branches[branch].dilation_rate
    end = np.full_like(segment, problem.n)
    if problem.cu_seqlens is not None:
        bounds = np.asarray(problem.cu_seqlens, dtype=np.int64)
        end = bounds[np.searchsorted(bounds, segment, side="right")]
    last: IntArray = (np.minimum(w, end - segment) - 1 - offset) // r
    return last


def tile_end(
    problem: Problem, branch: int, segment: IntArray, offset: IntArray, x: IntArray, block: int
) -> IntArray:
    """Global position of the last row of the tile that holds row x of (segment, offset)."""
    r = problem.pattern.branches[branch].dilation_rate
    size = tile_rows(problem, branch, block)
    last = np.minimum((x // size + 1) * size - 1, _last_rows(problem, branch, segment, offset))
    end: IntArray = segment + last * r + offset
    return end


def unfinished(
    problem: Problem, key_class: KeyClass, positions: IntArray, frontier: int, block: int
) -> BoolArray:
    """Which rows belong to a tile that reaches `frontier` or beyond, in some branch."""
    keep = np.zeros(len(positions), dtype=np.bool_)
    for branch, offsets in enumerate(key_class.offsets):
        r = problem.pattern.branches[branch].dilation_rate
        segment, place = problem.key_coordinates(branch, positions)
        residue = place % r
        end = tile_end(problem, branch, segment, residue, place // r, block)
        for offset in offsets:
            keep |= (residue == offset) & (end >= frontier)
    return keep


def aligned_tiles(
    problem: Problem, found: Iterable[Run], done: int, frontier: int, block: int
) -> Iterator[AlignedTile]:
    """The tiles of these runs that end in [done, frontier), in ascending order of their end."""
    tiles = [t for run in found for t in _cut(problem, run, done, frontier, block)]
    tiles.sort(key=lambda tile: (tile.end, tile.run.branch))
    yield from tiles


def _cut(problem: Problem, run: Run, done: int, frontier: int, block: int) -> Iterator[AlignedTile]:
    size = tile_rows(problem, run.branch, block)
    scalar = np.asarray([run.segment]), np.asarray([run.offset])
    key_x, query_x = run.key_x.asarray(), run.query_x.asarray()
    for tile in range(run.key_x.first // size, run.key_x.last // size + 1):
        end = int(tile_end(problem, run.branch, *scalar, np.asarray([tile * size]), block)[0])
        if not done <= end < frontier:
            continue
        a, b = np.searchsorted(key_x, (tile * size, (tile + 1) * size))
        if a == b:
            continue
        part_x = run.key_x.part(int(a), int(b))
        for q in range(run.query_x.first // size, run.query_x.last // size + 1):
            c, e = np.searchsorted(query_x, (q * size, (q + 1) * size))
            if c == e:
                continue
            rows_x = run.query_x.part(int(c), int(e))
            if run.masked and part_x.first > rows_x.last:
                continue
            cut = Run(
                run.branch,
                run.offset,
                run.segment,
                run.heads,
                run.query.part(int(c), int(e)),
                rows_x,
                run.key.part(int(a), int(b)),
                part_x,
                run.masked and part_x.last > rows_x.first,
            )
            yield AlignedTile(
                cut,
                size,
                Rows.of(rows_x.asarray() - q * size),
                Rows.of(part_x.asarray() - tile * size),
                end,
            )
