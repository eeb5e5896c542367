"""Seconds of one forward and backward of a rank: its kernels, and what it waits for rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import cost
from ..cost import Traffic
from ..layout import Layout
from ..pattern import DilationPattern
from ..schedule.gathering import steps_together
from . import tiles, work
from .hardware import Link

if TYPE_CHECKING:
    from .planning import Call


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one forward and backward of the busiest rank, and where they go.

    GPU time; a call takes longer where the host launches more slowly. For R > 1 it is the rank's
    share of one GPU's time, by pairs, where the Hopper kernels take a rank's own rows as a
    sequence, and received ones past the same tiles. Elsewhere it is a lower bound: the pairs at the
    rate of full blocks, computed once where `gluon` computes them once for several branches.
    Transfers run beside the computation; `exposed_*` is what of them is left over.

    Args:
        forward: of the kernels.
        backward: of the kernels.
        exposed_forward: waiting for rows.
        exposed_backward: waiting for rows.
        is_bound: whether the kernels take that long at least.
    """

    forward: float
    backward: float
    exposed_forward: float
    exposed_backward: float
    is_bound: bool

    @property
    def total(self) -> float:
        """All of it."""
        return self.forward + self.backward + self.exposed_forward + self.exposed_backward


def step_of(
    call: Call, layout: Layout, pairs: int, goes: Traffic, comes: Traffic, partners: int, link: Link
) -> Step:
    """The kernels' tiles, one by one, and of a ring the rank's share or the least; and the link.

    An exchange, of one message or of several that go together, waits for the link's latency; in
    backward another carries the gradients home.
    """
    rates, problem = work.fitted(), call.problem
    kinds = [(call.backend, direction, call.head_dim) for direction in tiles.DIRECTIONS]
    bound = layout.ring_size > 1 and not _cuts_tiles_alone(call, layout)
    if bound:
        forward, backward = (
            work.least_seconds(problem, pairs * call.batch, *kind, rates) for kind in kinds
        )
    else:
        share = pairs / max(1, cost.visible_pairs(problem))
        forward, backward = (
            share * work.seconds(problem, *kind, call.batch, rates) for kind in kinds
        )
    if layout.ring_size == 1:
        return Step(forward, backward, 0.0, 0.0, is_bound=False)
    exchanges = -(-partners // steps_together(problem, layout, call.buffer_shards))
    there = exchanges * link.latency + max(goes.forward, comes.forward) / link.bandwidth
    back = 2 * exchanges * link.latency + max(goes.backward, comes.backward) / link.bandwidth
    waiting = max(0.0, there - forward), max(0.0, back - backward)
    return Step(forward, backward, *waiting, is_bound=bound)


def _cuts_tiles_alone(call: Call, layout: Layout) -> bool:
    """Whether a ring runs one GPU's tiles, cut at the shards and no further."""
    if call.backend != tiles.GLUON or work.period(call.problem) > work.LONGEST_PERIOD:
        return False
    return all(rows_are_a_sequence(call.pattern, *shard) for shard in _shards(layout))


def _shards(layout: Layout) -> list[tuple[int, int]]:
    """First row and number of rows of the first ranks, one in the middle, and the last."""
    ranks = {0, 1, layout.ring_size // 2, layout.ring_size - 1}
    return [(sum(layout.lengths[:rank]), layout.lengths[rank]) for rank in sorted(ranks)]


def rows_are_a_sequence(pattern: DilationPattern, begin: int, length: int) -> bool:
    """Whether `schedule.own` finds a shard's rows to be a sequence, without listing them."""
    return all(
        begin % one.segment_length == 0
        or (
            begin % one.segment_length % one.dilation_rate == 0
            and begin % one.segment_length + length <= one.segment_length
        )
        for one in pattern.branches
    )
