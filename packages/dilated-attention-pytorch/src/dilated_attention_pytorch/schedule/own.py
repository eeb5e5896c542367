"""A rank's own rows as a sequence of their own, where the ring's cuts leave them one.

Kernels for whole sequences can then compute the rank's own part of the keys. In a contiguous layout
that is so if in every branch the shard either begins where a segment does, or lies in one segment
and begins at a multiple of r in it: the pairs of the shard are then those of the same branches over
its rows alone, segments cut to the shard. In a zigzag the shard is two stretches, and the rows of
the second follow those of the first: so each of them has to lie in a segment, both in the same one
or each in its own, or to begin one and the first to end one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..layout import Layout
from ..pattern import Branch, DilationPattern
from .problem import Problem


class _Stretch(NamedTuple):
    """Positions begin:begin + length."""

    begin: int
    length: int


def _stretches(layout: Layout, rank: int) -> list[_Stretch]:
    """The rank's rows as they follow each other, a zigzag's second piece apart."""
    rows, length = layout.positions(rank), layout.lengths[rank]
    front = length if layout.contiguous else -(-length // 2)
    found = [_Stretch(int(rows[0]), front)]
    if front < length:
        found.append(_Stretch(int(rows[front]), length - front))
    return found


@lru_cache(maxsize=256)
def own_problem(problem: Problem, layout: Layout, rank: int) -> Problem | None:
    """The pairs among a rank's own rows as a problem over those rows, None where they are none.

    Args:
        problem: of the whole sequence.
        layout: who holds which rows.
        rank: whose rows.
    """
    length = layout.lengths[rank]
    if layout.order == "map" or not problem.pattern.exact or length == 0:
        return None
    stretches = _stretches(layout, rank)
    first, bounds = stretches[0], None
    document = 0
    if problem.cu_seqlens is not None:
        if len(stretches) > 1:
            return None
        document = max(bound for bound in problem.cu_seqlens if bound <= first.begin)
        inside = [
            bound for bound in problem.cu_seqlens if first.begin < bound < first.begin + length
        ]
        bounds = (0, *(bound - first.begin for bound in inside), length) if inside else None
    branches = []
    for branch in problem.pattern.branches:
        w = _own_length(branch, stretches, document, one_document=bounds is None)
        if w is None and len(stretches) == 2 and sum(first) == stretches[1].begin:
            # The pieces of the middle rank of a zigzag are one.
            w = _own_length(branch, [_Stretch(first.begin, length)], document, one_document=True)
        if w is None:
            return None
        branches.append(Branch(w, branch.dilation_rate))
    pattern = DilationPattern.from_branches(branches, problem.offsets)
    heads = problem.num_heads, problem.num_kv_heads
    return Problem(pattern, length, *heads, problem.is_causal, bounds)


def _own_length(
    branch: Branch, stretches: list[_Stretch], document: int, *, one_document: bool
) -> int | None:
    """Segment length of the branch over the rows alone; None where there is none."""
    w, r = branch.segment_length, branch.dilation_rate
    segment, place = zip(*(divmod(x.begin - document, w) for x in stretches), strict=True)
    first = stretches[0]
    if not any(place) and (len(stretches) == 1 or first.length % w == 0):
        return w
    within = all(at + x.length <= w for at, x in zip(place, stretches, strict=True))
    if not one_document or not within or place[0] % r:
        return None
    if len(stretches) == 1:
        return first.length
    second = stretches[1]
    if segment[0] == segment[1]:
        follows = (place[1] - first.length) % r == 0
        return first.length + second.length if follows else None
    return first.length if place[1] % r == 0 and second.length <= first.length else None


@lru_cache(maxsize=256)
def own_problems(problem: Problem, layout: Layout) -> tuple[Problem, ...]:
    """The distinct problems of all ranks' own rows; none where some rank's are no sequence."""
    found: dict[Problem, None] = {}
    for rank in range(layout.ring_size):
        own = own_problem(problem, layout, rank)
        if own is None:
            return ()
        found[own] = None
    return tuple(found)
