"""A rank's own rows as a sequence of their own, where the ring's cuts leave them one.

Kernels for whole sequences can then compute the rank's own part of the keys. In a contiguous layout
that is so if in every branch the shard either begins where a segment does, or lies in one segment
and begins at a multiple of r in it: the pairs of the shard are then those of the same branches over
its rows alone, segments cut to the shard.
"""

from __future__ import annotations

from functools import lru_cache

from ..layout import Layout
from ..pattern import Branch, DilationPattern
from .problem import Problem


@lru_cache(maxsize=256)
def own_problem(problem: Problem, layout: Layout, rank: int) -> Problem | None:
    """The pairs among a rank's own rows as a problem over those rows, None where they are none.

    Args:
        problem: of the whole sequence.
        layout: who holds which rows.
        rank: whose rows.
    """
    begin, length = sum(layout.lengths[:rank]), layout.lengths[rank]
    if not layout.contiguous or not problem.pattern.exact or length == 0:
        return None
    document, bounds = 0, None
    if problem.cu_seqlens is not None:
        document = max(bound for bound in problem.cu_seqlens if bound <= begin)
        inside = [bound for bound in problem.cu_seqlens if begin < bound < begin + length]
        bounds = (0, *(bound - begin for bound in inside), length) if inside else None
    branches = []
    for branch in problem.pattern.branches:
        w, r = branch.segment_length, branch.dilation_rate
        place = (begin - document) % w
        if place:
            if bounds is not None or place + length > w or place % r:
                return None
            w = length
        branches.append(Branch(w, r))
    pattern = DilationPattern.from_branches(branches, problem.offsets)
    heads = problem.num_heads, problem.num_kv_heads
    return Problem(pattern, length, *heads, problem.is_causal, bounds)


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
