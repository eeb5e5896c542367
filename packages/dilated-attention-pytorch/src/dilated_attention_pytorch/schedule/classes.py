"""Rows that the same branches select: cells in which all branches are periodic, and their classes.

Rows of one head that the same branches select are a **class**. Where r divides w (or one segment
holds the document) a branch selects with one period, and the classes of the period lcm(r) are those
of the whole sequence. Other branches, and documents, cut it into **cells** in which every branch is
periodic again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from .problem import Problem

Offsets = tuple[int | None, ...]
Side = Literal["out", "query", "key"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Positions begin:end of one document in which every branch selects periodically.

    `starts[i]` is the position from which branch i counts: its segment there, or the document
    where all of its segments count alike (r divides w). `shifts[i]` is what lies between a query
    and its row of out there, None where the queries have no row of out in branch i.
    """

    begin: int
    end: int
    document: int
    document_end: int
    starts: tuple[int, ...]
    shifts: tuple[int | None, ...]


def _periodic(problem: Problem, branch: int, length: int) -> bool:
    """Whether the branch selects with one period over a document of this length."""
    w = problem.pattern.branches[branch].segment_length
    return w % problem.pattern.branches[branch].dilation_rate == 0 or w >= length


def _reached(problem: Problem, branch: int) -> int:
    """The first query that has no row of out in a shifted branch."""
    w, padded = problem.segment_length(branch), problem.padded_segment(branch)
    last = (problem.n - 1) // padded
    return last * w + min(w, problem.n - last * padded)


def cells(problem: Problem, side: Side = "query") -> Iterator[Cell]:
    """Cut the positions of one side into cells, in ascending order."""
    bounds = problem.cu_seqlens or (0, problem.n)
    for start, end in pairwise(bounds):
        if start == end:
            continue
        # Branches that count afresh in every segment, and how far segments lie apart.
        spans: dict[int, int] = {}
        cuts = {start, end}
        for i in range(problem.num_branches):
            if problem.shifted(i):
                spans[i] = problem.padded_segment(i) if side == "out" else problem.segment_length(i)
                if side == "query":
                    cuts.add(_reached(problem, i))
            elif not _periodic(problem, i, end - start):
                spans[i] = problem.pattern.branches[i].segment_length
        for span in spans.values():
            cuts.update(range(start, end, span))
        edges = sorted(cuts)
        for begin, stop in pairwise(edges):
            starts = [start] * problem.num_branches
            shifts: list[int | None] = [0] * problem.num_branches
            for i, span in spans.items():
                segment, place = divmod(begin - start, span)
                starts[i] = begin - place
                if problem.shifted(i):
                    gap = problem.padded_segment(i) - problem.segment_length(i)
                    lost = side == "query" and begin >= _reached(problem, i)
                    shifts[i] = None if lost else segment * gap
            yield Cell(begin, stop, start, end, tuple(starts), tuple(shifts))


@lru_cache(maxsize=256)
def count_cells(problem: Problem) -> int:
    """Number of pieces that documents and unevenly selecting branches cut the sequence into.

    The end of a shifted branch's queries, which may cut one more piece, is not counted.
    """
    total = 0
    for start, end in pairwise(problem.cu_seqlens or (0, problem.n)):
        total += start < end
        for i, branch in enumerate(problem.pattern.branches):
            if start < end and not _periodic(problem, i, end - start):
                total += (end - start - 1) // branch.segment_length
    return total


@lru_cache(maxsize=4096)
def row_classes(
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
