"""Rows that the same branches select: cells in which all branches are periodic, and their classes.

Rows of one head that the same branches select are a **class**. Where r divides w (or one segment
holds the document) a branch selects with one period, and the classes of the period lcm(r) are those
of the whole sequence. Other branches, and documents, cut it into **cells** in which every branch is
periodic again. The residues of a class need not step evenly; then it is cut into classes that do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from ..typing import BoolArray
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


def progressions(
    residues: BoolArray, steps: tuple[int, ...] | None = None
) -> list[tuple[int, int]]:
    """(first, step) of progressions that make up a set of residues, given as a mask of the period.

    Of all steps that divide the period, or of those given, the shortest that hold nothing else come
    first. The period is one of them.
    """
    left, period = residues.copy(), len(residues)
    found: list[tuple[int, int]] = []
    for step in steps or (step for step in range(1, period + 1) if period % step == 0):
        for first in np.flatnonzero(left.reshape(-1, step).all(0)).tolist():
            found.append((first, step))
            left[first::step] = False
    return found


@lru_cache(maxsize=4096)
def row_classes(
    rates: tuple[int, ...], phases: tuple[int, ...], members: tuple[Offsets, ...]
) -> tuple[tuple[int, int, tuple[bool, ...]], ...]:
    """Classes of one period: (first row, step, which (member, branch) pairs cover it).

    Rows that the same pairs cover are cut into classes of the shortest steps that hold nothing
    else, so that many rows of a class lie in a segment: of the rates 1 and 4 the rows that only the
    first covers are a class of step 2 and one of step 4, whatever longer rates there are.

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
        covers = tuple(signature.tolist())
        cut = progressions(inverse.reshape(-1) == number)
        found.extend((first, step, covers) for first, step in cut)
    return tuple(found)
