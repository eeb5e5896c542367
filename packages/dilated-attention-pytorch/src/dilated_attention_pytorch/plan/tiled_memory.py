"""Peak bytes of a rank whose kernels stream the keys of all ranks past tiles of its own rows.

`ring.tiled` has no tiles of scores in memory and sums in float32 only where it must: of rows that
several groups of received rows are added to, and of gradients of keys that travelled. What the
allocator sees is counted as in `memory`, in a second step that finds its message buffers.
"""

from __future__ import annotations

from itertools import product

from ..layout import Layout
from ..schedule import Problem
from ..typing import IntArray
from . import work
from .memory import Memory, groups_of, kept_indices, kept_messages
from .travel import leaving

_WIDE = 4
_ITEMSIZE = 2


def tiled_rank(
    problem: Problem,
    layout: Layout,
    rank: int,
    *,
    batch: int,
    head_dim: int,
    buffer_shards: int = 2,
) -> Memory:
    """One rank of a ring on `gluon`, 16-bit inputs, contiguous shards, layout `sharded`.

    Not counted, as by `memory.whole_sequence`: the tables of the launches, and copies of inputs
    that TMA cannot read. Every row of a tile of keys of which one travels is taken to travel.

    Args:
        problem: what is computed.
        layout: who holds which rows.
        rank: which rank.
        batch: b.
        head_dim: d.
        buffer_shards: as in the call.
    """
    query = batch * layout.lengths[rank] * problem.num_heads
    keys = batch * layout.lengths[rank] * problem.num_kv_heads
    inputs = (query + 2 * keys) * head_dim * _ITEMSIZE
    results = query * head_dim
    groups = groups_of(problem, layout, rank, buffer_shards)
    came, went, _ = groups
    travelled = leaving(problem, layout, rank)
    elements = 2 * batch * head_dim
    # Where gradients are added, and two numbers of each row whose gradient they make.
    indices = kept_indices(groups) + 8 * int(went.sum()) + 16 * travelled
    kept = indices + kept_messages(groups, elements * _ITEMSIZE, elements * _WIDE)
    wide = _adds_up(problem, layout, rank, came[1:-1])
    # Sums are there while they are rounded.
    rounded = results * (_WIDE + _ITEMSIZE if wide else _ITEMSIZE)
    forward = inputs + kept + rounded + _WIDE * query

    saved = inputs + 2 * results * _ITEMSIZE + _WIDE * query
    statistics = 2 * _WIDE * query
    gradients = 2 * keys * head_dim * _ITEMSIZE + elements * travelled * _WIDE
    # The rounded gradients of keys that travelled, of values while those of keys are still there.
    finishing = batch * head_dim * travelled * (_WIDE + 2 * _ITEMSIZE)
    backward = saved + kept + rounded + statistics + gradients + finishing
    return Memory(forward, backward, kept)


def _adds_up(problem: Problem, layout: Layout, rank: int, came: IntArray) -> bool:
    """Whether received rows are added to stored results: see `schedule.ring_streams.query_tiles`.

    Where one group of rounds brings them all, own keys of the queries that see some wait for them,
    unless these queries have the greater part of the work.

    Args:
        problem: what is computed.
        layout: who holds which rows.
        rank: which rank.
        came: row-heads that come in each group of rounds.
    """
    if len(came) != 1 or not came.any():
        return bool(came.any())
    begin, length = sum(layout.lengths[:rank]), layout.lengths[rank]
    last = begin + length - 1
    crosses, reach = [], []
    for branch in range(problem.num_branches):
        w = problem.segment_length(branch)
        later = min(last - last % w + w, problem.n) > last + 1 and not problem.is_causal
        crosses.append(begin % w > 0 or later)
        reach.append(min(w, length))
    waiting = others = 0.0
    for offsets, residue in product(
        zip(*problem.offsets, strict=True), range(work.period(problem))
    ):
        keys, covered, sees = 0.0, 0, False
        for branch, offset in enumerate(offsets):
            rate = problem.pattern.branches[branch].dilation_rate
            place = begin % problem.segment_length(branch) + residue
            if offset is not None and place % rate == offset:
                keys += max(0, reach[branch] - covered) / rate
                covered = max(covered, reach[branch])
                sees |= crosses[branch]
        if sees:
            waiting += keys
        else:
            others += keys
    return others < waiting
