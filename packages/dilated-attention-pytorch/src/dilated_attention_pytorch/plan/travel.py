"""Row-heads that travel between contiguous shards, in closed form: no rows are listed.

A key outside a shard is seen by one of the shard's queries only in a segment that crosses the
shard's edge, and every branch has one such segment on either side. So the keys that travel are the
union, over the branches, of evenly spaced rows of one range each. Where the set of branches is
constant the union repeats with the least common multiple of their rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from ..layout import Layout
from ..schedule import Problem, key_classes
from ..typing import IntArray


class _Lattice(NamedTuple):
    """Rows p of begin:end with `(p - start) mod rate` in `residues`."""

    begin: int
    end: int
    start: int
    rate: int
    residues: tuple[int, ...]


# Branch, its offsets, its rate, start and end of one of its segments.
_Segment = tuple[int, Sequence[int], int, int, int]
_Periodic = tuple[tuple[int, int, tuple[int, ...]], ...]


@lru_cache(maxsize=4096)
def _prefix(sets: _Periodic, rows: int) -> IntArray:
    """(rows + 1,) how many of the first x rows lie in one of the sets (phase, rate, residues)."""
    place = np.arange(rows)
    found = np.zeros(rows, dtype=np.bool_)
    for phase, rate, residues in sets:
        chosen = np.zeros(rate, dtype=np.bool_)
        chosen[list(residues)] = True
        found |= chosen[(place + phase) % rate]
    return np.concatenate([[0], np.cumsum(found)])


def _below(lattices: Sequence[_Lattice], at: IntArray) -> IntArray:
    """How many rows of the union lie before each position."""
    total = np.zeros(len(at), dtype=np.int64)
    for low, high in pairwise(sorted({edge for x in lattices for edge in (x.begin, x.end)})):
        inside = [x for x in lattices if x.begin <= low and high <= x.end]
        if not inside:
            continue
        period = min(math.lcm(*(x.rate for x in inside)), high - low)
        sets = tuple(((low - x.start) % x.rate, x.rate, x.residues) for x in inside)
        prefix = _prefix(sets, period)
        whole, rest = np.divmod(np.clip(at, low, high) - low, period)
        total += whole * prefix[-1] + prefix[rest]
    return total


def _asked(offsets: Sequence[int], rate: int, start: int, begin: int, end: int) -> tuple[int, ...]:
    """Which offsets the queries begin:end of the segment at `start` have."""
    if end - begin >= rate:
        return tuple(offsets)
    return tuple(o for o in offsets if (o - (begin - start)) % rate < end - begin)


@lru_cache(maxsize=64)
def _starts(layout: Layout) -> IntArray:
    return np.array([0, *accumulate(layout.lengths)], dtype=np.int64)


def _crossing(
    problem: Problem, offsets: Sequence[Sequence[int]], position: int
) -> Iterator[_Segment]:
    """Of each branch its segment that holds a position."""
    for branch, of_branch in enumerate(offsets):
        if of_branch:
            w = problem.segment_length(branch)
            start = position - position % w
            rate = problem.pattern.branches[branch].dilation_rate
            yield branch, of_branch, rate, start, min(start + w, problem.n)


def _sides(problem: Problem) -> tuple[bool, ...]:
    """Whether keys come from earlier ranks (True) and, without causality, from later ones."""
    return (True,) if problem.is_causal else (True, False)


@lru_cache(maxsize=1024)
def received(problem: Problem, layout: Layout, rank: int) -> IntArray:
    """(R,) row-heads that a rank receives from each rank in forward; cached, not to be written.

    Equal to counting `schedule.message(problem, layout, source, rank)` for every source.
    """
    _check(problem, layout)
    starts = _starts(layout)
    a, b = int(starts[rank]), int(starts[rank + 1])
    found = np.zeros(layout.ring_size, dtype=np.int64)
    if a == b:
        return found
    for key_class in key_classes(problem):
        for earlier in _sides(problem):
            lattices = []
            edge = a if earlier else b - 1
            for _, offsets, rate, start, end in _crossing(problem, key_class.offsets, edge):
                residues = _asked(offsets, rate, start, max(a, start), min(b, end))
                begin, stop = (start, a) if earlier else (b, end)
                if residues and begin < stop:
                    lattices.append(_Lattice(begin, stop, start, rate, residues))
            if lattices:
                found += len(key_class.heads) * np.diff(_below(lattices, starts))
    return found


@lru_cache(maxsize=1024)
def sent(problem: Problem, layout: Layout, rank: int) -> IntArray:
    """(R,) row-heads that a rank sends to each rank in forward; cached, not to be written.

    Equal to counting `schedule.message(problem, layout, rank, target)` for every target. Targets
    whose queries reach into the same segments, with all offsets, get the same rows.
    """
    _check(problem, layout)
    starts = _starts(layout)
    c, d = int(starts[rank]), int(starts[rank + 1])
    found = np.zeros(layout.ring_size, dtype=np.int64)
    if c == d:
        return found
    for later in _sides(problem):
        targets = slice(rank + 1, layout.ring_size) if later else slice(0, rank)
        first, last = starts[:-1][targets], starts[1:][targets]
        for key_class in key_classes(problem):
            segments = list(_crossing(problem, key_class.offsets, d - 1 if later else c))
            reach = np.zeros((len(segments), len(first)), dtype=np.int64)
            for i, (_, _, rate, start, end) in enumerate(segments):
                rows = np.minimum(last, end) - np.maximum(first, start)
                reach[i] = np.clip(rows, 0, rate)
            meets = np.flatnonzero(reach.any(0))
            full = reach == np.array([rate for _, _, rate, _, _ in segments])[:, None]
            codes = (full << np.arange(len(segments))[:, None]).sum(0)
            # What a target with part of a period asks for depends on where it begins.
            partial = ((reach > 0) & ~full).any(0)
            codes[partial] = -1 - np.flatnonzero(partial)
            _, examples, kinds = np.unique(codes[meets], return_index=True, return_inverse=True)
            counts = [
                _seen(segments, c, d, int(first[target]), int(last[target]))
                for target in meets[examples]
            ]
            if counts:
                rows = np.array(counts, dtype=np.int64)[kinds.reshape(-1)]
                found[targets.start + meets] += len(key_class.heads) * rows
    return found


@lru_cache(maxsize=1024)
def leaving(problem: Problem, layout: Layout, rank: int) -> int:
    """Row-heads of a rank that travel at all, to however many ranks.

    Equal to counting the union over the targets of `schedule.message(problem, layout, rank, ...)`.
    """
    _check(problem, layout)
    starts = _starts(layout)
    c, d = int(starts[rank]), int(starts[rank + 1])
    if c == d:
        return 0
    found = 0
    for key_class in key_classes(problem):
        lattices = []
        for later in _sides(problem):
            segments = _crossing(problem, key_class.offsets, d - 1 if later else c)
            lattices += _held(segments, c, d, *((d, problem.n) if later else (0, c)))
        found += len(key_class.heads) * int(_below(lattices, np.array([d]))[0])
    return found


def _seen(segments: Iterable[_Segment], c: int, d: int, a: int, b: int) -> int:
    """How many of the keys c:d the queries a:b see through these segments."""
    return int(_below(_held(segments, c, d, a, b), np.array([d]))[0])


def _held(segments: Iterable[_Segment], c: int, d: int, a: int, b: int) -> list[_Lattice]:
    """The keys c:d that the queries a:b see through these segments, of each segment."""
    lattices = []
    for _, offsets, rate, start, end in segments:
        low, high = max(a, start), min(b, end)
        residues = _asked(offsets, rate, start, low, high) if low < high else ()
        begin, stop = max(c, start), min(d, end)
        if residues and begin < stop:
            lattices.append(_Lattice(begin, stop, start, rate, residues))
    return lattices


def _check(problem: Problem, layout: Layout) -> None:
    assert layout.contiguous, "the closed form knows contiguous shards"
    assert problem.cu_seqlens is None, "the closed form knows one document"
    assert not problem.pattern.shift_rows, "the closed form knows no row shift"


def likely_ranks(problem: Problem, layout: Layout, count: int) -> tuple[int, ...]:
    """All ranks, or where there are more than `count` those that likely send or receive most.

    Half of them are spread evenly, first and last included; the others are first by the rows of
    the segments that cross their edges, counted without looking for rows that branches share.
    """
    size = layout.ring_size
    if size <= count:
        return tuple(range(size))
    starts = _starts(layout).astype(np.float64)
    a, b = starts[:-1], starts[1:]
    into, out = np.zeros(size), np.zeros(size)
    for branch, offsets in enumerate(problem.offsets):
        w = problem.segment_length(branch)
        heads = sum(o is not None for o in offsets)
        share = heads / problem.pattern.branches[branch].dilation_rate
        into += share * (a % w)
        end = np.minimum(b - 1 - (b - 1) % w + w, problem.n)
        out += share * np.minimum((b - 1) % w + 1, b - a) * np.ceil((end - b) / (problem.n / size))
        if not problem.is_causal:
            into += share * (end - b)
            start = a - a % w
            out += (
                share * (np.minimum(start + w, b) - a) * np.ceil((a - start) / (problem.n / size))
            )
    even = np.linspace(0, size - 1, count // 2).round().astype(int).tolist()
    quarter = count // 4
    most = np.concatenate([np.argsort(-x, kind="stable")[:quarter] for x in (into, out)])
    return tuple(sorted({*even, *most.tolist()}))
