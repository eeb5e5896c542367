"""Tiles for kernels that meet all branches of a row in one softmax.

Rows of one head that the same branches select are a **class**; a tile is up to `block` of its rows,
evenly spaced. The same branches cover all rows of a tile, so for each branch the tile needs one
range of evenly spaced rows of the other side, and one online softmax runs over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .problem import Problem

Int32Array = npt.NDArray[np.int32]
Offsets = tuple[int | None, ...]


@dataclass(frozen=True, eq=False, slots=True)
class TileTable:
    """Tiles of all heads on one side (queries, or keys of key/value heads).

    Args:
        programs: (P, 2) of (head, tile), in launch order.
        tiles: (T, 4) of (first position, step, rows, first position of the document).
        entries: (T, members * branches, 4) of (first position, rows, full_begin, full_end) on the
            other side, whose rows step by the branch's dilation rate; `rows` is 0 where the branch
            does not cover the tile. Pairs with rows full_begin:full_end are all visible; others
            need the masks (causality, segment, end of range). Members are the query heads of a
            key/value head, 1 on the query side.
        straddles: some tile's rows lie in several segments of a branch that covers it.
    """

    programs: Int32Array
    tiles: Int32Array
    entries: Int32Array
    straddles: bool


@dataclass(frozen=True, slots=True)
class _Cell:
    """Positions begin:end of one document in which every branch selects periodically.

    `starts[i]` is the position from which branch i counts: its segment there, or the document
    where all of its segments count alike (r divides w).
    """

    begin: int
    end: int
    document: int
    document_end: int
    starts: tuple[int, ...]


def _periodic(problem: Problem, branch: int, length: int) -> bool:
    """Whether the branch selects with one period over a document of this length."""
    w = problem.pattern.branches[branch].segment_length
    return w % problem.pattern.branches[branch].dilation_rate == 0 or w >= length


def _cells(problem: Problem) -> Iterator[_Cell]:
    bounds = problem.cu_seqlens or (0, problem.n)
    for start, end in pairwise(bounds):
        if start == end:
            continue
        uneven = [i for i in range(problem.num_branches) if not _periodic(problem, i, end - start)]
        cuts = {start, end}
        for i in uneven:
            cuts.update(range(start, end, problem.pattern.branches[i].segment_length))
        edges = sorted(cuts)
        for begin, stop in pairwise(edges):
            starts = [start] * problem.num_branches
            for i in uneven:
                w = problem.pattern.branches[i].segment_length
                starts[i] = begin - (begin - start) % w
            yield _Cell(begin, stop, start, end, tuple(starts))


def count_cells(problem: Problem) -> int:
    """Number of pieces that documents and unevenly selecting branches cut the sequence into."""
    total = 0
    for start, end in pairwise(problem.cu_seqlens or (0, problem.n)):
        total += start < end
        for i, branch in enumerate(problem.pattern.branches):
            if start < end and not _periodic(problem, i, end - start):
                total += (end - start - 1) // branch.segment_length
    return total


@lru_cache(maxsize=4096)
def _classes(
    rates: tuple[int, ...], phases: tuple[int, ...], members: tuple[Offsets, ...]
) -> tuple[tuple[int, int, tuple[bool, ...]], ...]:
    """Classes of one period: (first row, step, which (member, branch) pairs cover it).

    `phases[i]` is the place of row 0 modulo `rates[i]`.
    """
    period = math.lcm(*rates)
    rows = np.arange(period)
    bits = np.stack(
        [
            (rows + phase) % rate == (-1 if offsets[i] is None else offsets[i])
            for offsets in members
            for i, (rate, phase) in enumerate(zip(rates, phases, strict=True))
        ],
        axis=1,
    )
    signatures, inverse = np.unique(bits, axis=0, return_inverse=True)
    found: list[tuple[int, int, tuple[bool, ...]]] = []
    for number, signature in enumerate(signatures):
        residues = np.flatnonzero(inverse.reshape(-1) == number)
        step = period // len(residues)
        even = period % len(residues) == 0 and bool((np.diff(residues) == step).all())
        groups = [(int(residues[0]), step)] if even else [(int(c), period) for c in residues]
        found.extend((first, gap, tuple(signature.tolist())) for first, gap in groups)
    return tuple(found)


def _class_tiles(
    problem: Problem, members: tuple[Offsets, ...], block: int, other: int, *, keys: bool
) -> tuple[IntArray, IntArray, bool]:
    """Tiles and entries of one kind of head, and whether some tile straddles segments."""
    rates = tuple(branch.dilation_rate for branch in problem.pattern.branches)
    tiles, entries, straddles = [], [], False
    for cell in _cells(problem):
        phases = tuple((cell.begin - s) % r for s, r in zip(cell.starts, rates, strict=True))
        for first, step, covered in _classes(rates, phases, members):
            rows = -((cell.begin + first - cell.end) // step)
            if rows <= 0:
                continue
            index = np.arange(-(-rows // block), dtype=np.int64) * block
            start = cell.begin + first + step * index
            count = np.minimum(block, rows - index)
            last = start + step * (count - 1)
            tiles.append(
                np.stack(
                    [start, np.full_like(start, step), count, np.full_like(start, cell.document)], 1
                )
            )
            columns = []
            for lane, used in enumerate(covered):
                member, branch = divmod(lane, len(rates))
                offset = members[member][branch]
                if not used or offset is None:
                    columns.append(np.zeros((len(start), 4), dtype=np.int64))
                    continue
                entry, crossing = _entry(
                    problem, cell, branch, offset, start, last, other, keys=keys
                )
                columns.append(entry)
                straddles |= crossing
            entries.append(np.stack(columns, 1))
    lanes = len(members) * len(rates)
    if not tiles:
        none = np.zeros((0, 4), dtype=np.int64), np.zeros((0, lanes, 4), dtype=np.int64)
        return *none, False
    all_tiles, all_entries = np.concatenate(tiles), np.concatenate(entries)
    order = np.argsort(all_tiles[:, 0], kind="stable")
    return all_tiles[order], all_entries[order], straddles


def _entry(
    problem: Problem,
    cell: _Cell,
    branch: int,
    offset: int,
    first: IntArray,
    last: IntArray,
    other: int,
    *,
    keys: bool,
) -> tuple[IntArray, bool]:
    """The other side's rows for tiles from `first` to `last`, and whether some tile straddles."""
    w = problem.pattern.branches[branch].segment_length
    rate = problem.pattern.branches[branch].dilation_rate
    start = cell.starts[branch]
    low_segment, high_segment = (first - start) // w, (last - start) // w
    base = start + low_segment * w + offset
    end = np.minimum(start + (high_segment + 1) * w, cell.document_end)
    rows = np.maximum(0, -((base - end) // rate))
    full_begin, full_end = np.zeros_like(rows), rows.copy()
    if problem.is_causal and keys:
        skipped = np.clip(-((base - first) // rate), 0, rows)
        base, rows = base + skipped * rate, rows - skipped
        full_begin, full_end = np.clip(-((base - last) // rate), 0, rows), rows.copy()
    elif problem.is_causal:
        rows = np.clip((last - base) // rate + 1, 0, rows)
        full_end = np.clip((first - base) // rate + 1, 0, rows)
    full_begin = np.minimum(-(-full_begin // other) * other, rows)
    full_end = np.maximum(full_begin, full_end // other * other)
    straddles = low_segment != high_segment
    full_begin[straddles] = 0
    full_end[straddles] = 0
    return np.stack([base, rows, full_begin, full_end], 1), bool(straddles.any())


@lru_cache(maxsize=64)
def tile_table(problem: Problem, block: int, other: int, *, keys: bool = False) -> TileTable:
    """All tiles of one side.

    Args:
        problem: what is computed; torchscale's row shift is not covered.
        block: rows of a tile.
        other: rows that a kernel takes from the other side at a time.
        keys: tiles of key rows for key/value heads; of query rows for query heads otherwise.

    Raises:
        ValueError: the pattern shifts rows, which this table cannot say.
    """
    if problem.pattern.shift_rows:
        raise ValueError("tile tables do not cover torchscale's row shift")
    group = problem.num_heads // problem.num_kv_heads if keys else 1
    heads = problem.num_heads // group
    by_head = list(zip(*problem.offsets, strict=True))
    kinds: dict[tuple[Offsets, ...], tuple[int, int]] = {}
    programs, tiles, entries = [], [], []
    made, straddles = 0, False
    for head in range(heads):
        members = tuple(by_head[head * group : (head + 1) * group])
        if members not in kinds:
            some_tiles, some_entries, crossing = _class_tiles(
                problem, members, block, other, keys=keys
            )
            straddles |= crossing
            kinds[members] = (made, len(some_tiles))
            tiles.append(some_tiles)
            entries.append(some_entries)
            made += len(some_tiles)
        first, count = kinds[members]
        numbers = np.arange(first, first + count, dtype=np.int64)
        programs.append(np.stack([np.full_like(numbers, head), numbers], 1))
    return TileTable(
        np.concatenate(programs).astype(np.int32),
        np.concatenate(tiles).astype(np.int32),
        np.concatenate(entries).astype(np.int32),
        straddles,
    )
