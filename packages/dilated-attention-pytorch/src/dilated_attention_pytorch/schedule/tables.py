"""Tiles for kernels that meet all branches of a row in one softmax.

A tile is up to `block` rows of one class (`classes.py`), evenly spaced. The same branches cover
all its rows, so for each branch the tile needs one range of evenly spaced rows of the other side,
and one online softmax runs over all of them.

torchscale's row shift parts the rows of out from the query rows: in a shifted branch the row t of
out answers the query `t - shift`, with one shift for each segment. Tiles lie on rows of out, of
query, or of key; what their entries say of the other side is in positions of query or key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..typing import IntArray
from .classes import Cell, Offsets, Side, cells, row_classes
from .problem import Problem

Int32Array = npt.NDArray[np.int32]


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
        lanes: with torchscale's switches, (T, members * branches, 4) of (covered, shift, end,
            origin). `covered` is 1 where the branch selects the tile's rows, if only for phantom
            keys; a row of out is `shift` after its query; query positions from `end` on stand for
            queries of zeros; segments count from `origin`.
    """

    programs: Int32Array
    tiles: Int32Array
    entries: Int32Array
    straddles: bool
    lanes: Int32Array | None = None


def _class_tiles(
    problem: Problem, members: tuple[Offsets, ...], block: int, other: int, side: Side
) -> tuple[IntArray, IntArray, bool]:
    """Tiles and entries of one kind of head, and whether some tile straddles segments."""
    rates = tuple(branch.dilation_rate for branch in problem.pattern.branches)
    tiles, entries, straddles = [], [], False
    for cell in cells(problem, side):
        phases = tuple((cell.begin - s) % r for s, r in zip(cell.starts, rates, strict=True))
        present = members
        if None in cell.shifts:
            present = tuple(
                tuple(None if s is None else o for o, s in zip(row, cell.shifts, strict=True))
                for row in members
            )
        for first, step, covered in row_classes(rates, phases, present):
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
                offset = present[member][branch]
                if not used or offset is None:
                    columns.append(np.zeros((len(start), 8), dtype=np.int64))
                    continue
                entry, crossing = _entry(problem, cell, branch, offset, start, last, other, side)
                columns.append(entry)
                straddles |= crossing
            entries.append(np.stack(columns, 1))
    lanes = len(members) * len(rates)
    if not tiles:
        none = np.zeros((0, 4), dtype=np.int64), np.zeros((0, lanes, 8), dtype=np.int64)
        return *none, False
    all_tiles, all_entries = np.concatenate(tiles), np.concatenate(entries)
    order = np.argsort(all_tiles[:, 0], kind="stable")
    return all_tiles[order], all_entries[order], straddles


def _entry(
    problem: Problem,
    cell: Cell,
    branch: int,
    offset: int,
    first: IntArray,
    last: IntArray,
    other: int,
    side: Side,
) -> tuple[IntArray, bool]:
    """Entry and lane columns of tiles from `first` to `last`, and whether some tile straddles."""
    w = problem.pattern.branches[branch].segment_length
    rate = problem.pattern.branches[branch].dilation_rate
    start, shift = cell.starts[branch], cell.shifts[branch]
    assert shift is not None, "members leave such branches out"
    if side == "out":
        start, first, last = start - shift, first - shift, last - shift
    if problem.shifted(branch):
        # A cell is one segment here; padding gives it rows of out without a query.
        low_segment = high_segment = np.zeros_like(first)
        real_end = min(start + w, cell.document_end)
        end = np.full_like(
            first,
            min(start + problem.padded_segment(branch), problem.n - shift)
            if side == "key"
            else real_end,
        )
    else:
        low_segment, high_segment = (first - start) // w, (last - start) // w
        real_end = cell.document_end
        end = np.minimum(start + (high_segment + 1) * w, cell.document_end)
    base = start + low_segment * w + offset
    rows = np.maximum(0, -((base - end) // rate))
    full_begin, full_end = np.zeros_like(rows), rows.copy()
    if problem.is_causal and side == "key":
        skipped = np.clip(-((base - first) // rate), 0, rows)
        base, rows = base + skipped * rate, rows - skipped
        full_begin, full_end = np.clip(-((base - last) // rate), 0, rows), rows.copy()
    elif problem.is_causal:
        rows = np.clip((last - base) // rate + 1, 0, rows)
        full_end = np.clip((first - base) // rate + 1, 0, rows)
    if side == "key":
        full_end = np.minimum(full_end, np.clip(-((base - real_end) // rate), 0, rows))
    full_begin = np.minimum(-(-full_begin // other) * other, rows)
    full_end = np.maximum(full_begin, full_end // other * other)
    straddles = low_segment != high_segment
    full_begin[straddles] = 0
    full_end[straddles] = 0
    lane = (np.full_like(base, x) for x in (1, shift, real_end, start))
    return np.stack([base, rows, full_begin, full_end, *lane], 1), bool(straddles.any())


@lru_cache(maxsize=64)
def tile_table(
    problem: Problem, block: int, other: int, *, keys: bool = False, outputs: bool = False
) -> TileTable:
    """All tiles of one side.

    Args:
        problem: what is computed.
        block: rows of a tile.
        other: rows that a kernel takes from the other side at a time.
        keys: tiles of key rows for key/value heads; of query rows for query heads otherwise.
        outputs: tiles of rows of out, where torchscale's row shift parts them from the queries.
    """
    assert not (keys and outputs)
    side: Side = "key" if keys else "out" if outputs else "query"
    group = problem.num_heads // problem.num_kv_heads if keys else 1
    heads = problem.num_heads // group
    by_head = list(zip(*problem.offsets, strict=True))
    kinds: dict[tuple[Offsets, ...], tuple[int, int]] = {}
    programs, tiles, entries = [], [], []
    made, straddles = 0, False
    for head in range(heads):
        members = tuple(by_head[head * group : (head + 1) * group])
        if members not in kinds:
            some_tiles, some_entries, crossing = _class_tiles(problem, members, block, other, side)
            straddles |= crossing
            kinds[members] = (made, len(some_tiles))
            tiles.append(some_tiles)
            entries.append(some_entries)
            made += len(some_tiles)
        first, count = kinds[members]
        numbers = np.arange(first, first + count, dtype=np.int64)
        programs.append(np.stack([np.full_like(numbers, head), numbers], 1))
    columns = np.concatenate(entries).astype(np.int32)
    return TileTable(
        np.concatenate(programs).astype(np.int32),
        np.concatenate(tiles).astype(np.int32),
        np.ascontiguousarray(columns[..., :4]),
        straddles,
        None if problem.pattern.exact else np.ascontiguousarray(columns[..., 4:]),
    )
