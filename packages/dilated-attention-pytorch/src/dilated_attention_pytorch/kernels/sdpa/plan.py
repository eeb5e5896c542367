"""Which library calls compute a sequence: each takes rows and heads that are a strided view.

A branch splits a sequence into full segments, which form a batch, and perhaps a shorter last one.
Within a segment the heads of one offset attend together; heads of several offsets share a call
where their views step evenly and a dimension is free for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ...schedule import Problem, Rows

# A piece has at most this many elements of out, or one stretch that no cut divides. Its calls are
# long enough that their overhead does not show, and its partial results do not grow with n.
PIECE_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
# CUDA kernels put the batch into a dimension of the grid that ends here.
MOST_SEGMENTS = 65535


@dataclass(frozen=True, slots=True)
class Piece:
    """Batch entries `first:last` and rows `begin:end`, a problem of its own."""

    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One library call: some heads, in every segment, for `groups` offsets.

    Group j takes rows `begin + s * segment + offset + j * offset_step + x * rate` of segment s,
    x < rows, and the heads of `query` and `key` shifted by `j * query_step` and `j * key_step`.

    Args:
        branch: branch number.
        begin: first row of the first segment.
        segment: rows of a segment.
        segments: number of segments.
        rate: dilation rate r.
        offset: o of group 0.
        rows: selected rows of a segment.
        query: query heads of group 0, evenly spaced.
        key: key/value heads of group 0; each serves len(query) / len(key) consecutive query heads.
        groups: number of offsets.
        offset_step: from one group's offset to the next's.
        query_step: likewise for query heads.
        key_step: likewise for key/value heads.
        groups_are_heads: groups stand in the head dimension, else in the batch dimension.
    """

    branch: int
    begin: int
    segment: int
    segments: int
    rate: int
    offset: int
    rows: int
    query: Rows
    key: Rows
    groups: int = 1
    offset_step: int = 0
    query_step: int = 0
    key_step: int = 0
    groups_are_heads: bool = False


def cut_unit(problem: Problem) -> int:
    """Distance of the places, counted from a document's start, that every branch cuts at."""
    return math.lcm(*(branch.segment_length for branch in problem.pattern.branches))


def cuda_limit(problem: Problem, head_dim: int) -> str | None:
    """Why CUDA kernels cannot take a piece whole; None where they can."""
    shortest = min(branch.segment_length for branch in problem.pattern.branches)
    stretch = min(cut_unit(problem), problem.n)
    if stretch // shortest > MOST_SEGMENTS:
        return (
            f"{stretch // shortest} segments of {shortest} rows lie in {stretch} rows that cannot "
            f"be cut apart, and CUDA kernels take {MOST_SEGMENTS} at a time"
        )
    if stretch * problem.num_heads * head_dim >= 8 << 31:
        return f"{stretch} rows that cannot be cut apart need offsets beyond 32 bits"
    return None


def pieces(
    problem: Problem, batch: int, row_elements: int, device: str, *, folds: bool
) -> tuple[Piece, ...]:
    """The problem in parts between which no pair exists.

    Args:
        problem: what is computed.
        batch: b.
        row_elements: H * d.
        device: its type.
        folds: in all tensors row 0 of the next batch entry comes n rows after this one's.
    """
    bounds = (0, problem.n) if problem.cu_seqlens is None else problem.cu_seqlens
    unit = cut_unit(problem)
    shortest = min(branch.segment_length for branch in problem.pattern.branches)
    most = min(PIECE_ELEMENTS[device] // row_elements, MOST_SEGMENTS * shortest)
    rows = max(1, most // unit) * unit
    found = []
    for begin, end in pairwise(bounds):
        entries = _entries(problem, end - begin, most) if folds else 1
        for first in range(0, batch, entries):
            last = min(first + entries, batch)
            found += [Piece(first, last, a, min(a + rows, end)) for a in range(begin, end, rows)]
    return tuple(found)


def _entries(problem: Problem, n: int, most: int) -> int:
    """Batch entries of a piece; one where segments and entries form no single strided batch."""
    lengths = (branch.segment_length for branch in problem.pattern.branches)
    if any(n // w > 1 and n % w for w in lengths):
        return 1
    return max(1, most // max(1, n))


@lru_cache(maxsize=256)
def calls(problem: Problem, n: int, *, single: bool, grouped: bool) -> tuple[Call, ...]:
    """The library calls of a piece, ordered by branch.

    Args:
        problem: of which the piece is a part.
        n: rows of the piece.
        single: the piece has one batch entry.
        grouped: a call may have fewer key/value heads than query heads.
    """
    found: list[Call] = []
    for number, branch in enumerate(problem.pattern.branches):
        w = min(branch.segment_length, n)
        full, tail = divmod(n, w)
        for begin, segment, segments in ((0, w, full), (full * w, tail, 1)):
            if segment:
                units = _units(problem, number, begin, segment, segments, grouped=grouped)
                found += _folded(units, one_sequence=single and segments == 1)
    return tuple(found)


def _units(
    problem: Problem, branch: int, begin: int, segment: int, segments: int, *, grouped: bool
) -> list[Call]:
    """A call for each offset, or several where its heads do not step evenly."""
    heads: dict[int, list[int]] = {}
    for head, offset in enumerate(problem.offsets[branch]):
        if offset is not None and offset < segment:
            heads.setdefault(offset, []).append(head)
    rate, group = problem.pattern.branches[branch].dilation_rate, _group(problem)
    return [
        Call(branch, begin, segment, segments, rate, offset, -((offset - segment) // rate), *pair)
        for offset, numbers in sorted(heads.items())
        for pair in _head_runs(numbers, group, grouped=grouped)
    ]


def _group(problem: Problem) -> int:
    return problem.num_heads // problem.num_kv_heads


def _head_runs(heads: list[int], group: int, *, grouped: bool) -> Iterator[tuple[Rows, Rows]]:
    """(query heads, key/value heads) that step evenly, the longest first part each time."""
    if not grouped:
        for member in range(group):
            yield from _head_runs_of([h for h in heads if h % group == member], group)
        return
    yield from _head_runs_of(heads, group)


def _head_runs_of(heads: list[int], group: int) -> Iterator[tuple[Rows, Rows]]:
    while heads:
        count = next(x for x in range(len(heads), 0, -1) if _pair(heads[:x], group) is not None)
        pair = _pair(heads[:count], group)
        assert pair is not None, "a single head steps evenly"
        yield pair
        heads = heads[count:]


def _pair(heads: Sequence[int], group: int) -> tuple[Rows, Rows] | None:
    serving = [h // group for h in heads]
    distinct = sorted(set(serving))
    query, key = (Rows.of(np.asarray(x, dtype=np.int64)) for x in (heads, distinct))
    repeats, rest = divmod(len(heads), len(distinct))
    even = not rest and serving == [g for g in distinct for _ in range(repeats)]
    return (query, key) if even and query.array is None and key.array is None else None


def _folded(units: list[Call], *, one_sequence: bool) -> list[Call]:
    """Units of evenly spaced offsets joined where a dimension of size 1 is free for them."""
    found: list[Call] = []
    for unit in units:
        joined = _join(found[-1], unit, one_sequence=one_sequence) if found else None
        if joined is None:
            found.append(unit)
        else:
            found[-1] = joined
    return found


def _join(call: Call, unit: Call, *, one_sequence: bool) -> Call | None:
    alike = (call.rows, call.query.step, len(call.query), call.key.step, len(call.key)) == (
        unit.rows,
        unit.query.step,
        len(unit.query),
        unit.key.step,
        len(unit.key),
    )
    one_head = len(unit.query) == 1
    if not alike or not (one_sequence or one_head):
        return None
    last = call.groups - 1
    steps = (
        unit.offset - (call.offset + last * call.offset_step),
        unit.query.start - (call.query.start + last * call.query_step),
        unit.key.start - (call.key.start + last * call.key_step),
    )
    # Views with a negative stride do not exist.
    if min(steps) < 0 or (last and steps != (call.offset_step, call.query_step, call.key_step)):
        return None
    return replace(
        call,
        groups=call.groups + 1,
        offset_step=steps[0],
        query_step=steps[1],
        key_step=steps[2],
        groups_are_heads=not one_sequence,
    )
