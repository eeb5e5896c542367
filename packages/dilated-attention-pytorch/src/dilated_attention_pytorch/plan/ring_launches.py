"""What a rank of a ring launches on the Hopper kernels, when, and what it waits for.

`ring.tiled` launches tiles of the rank's own keys while the first exchange is under way, and after
each exchange the tiles that its rows are for. The tiles of a rank are counted in the tables that
these launches take, or estimated from pairs where tables would be too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import cost
from ..kernels.gluon import MOST_VIEWS
from ..kernels.gluon import blocks as hopper
from ..layout import Layout
from ..pattern import Branch, DilationPattern
from ..ring.tiled import tiled_plan
from ..schedule import Message, Problem, RankPlan, plan_rank
from ..schedule.gathering import steps_together
from ..schedule.ring_streams import QueryTiles
from ..schedule.streams import StreamTable
from . import tiles, work
from .tiles import BACKWARD, DIRECTIONS, FORWARD, GLUON

if TYPE_CHECKING:
    from .planning import Call

# Rings of more ranks are not counted: a rank's plan looks at every other rank.
_MOST_RANKS: Final = 16
_QUERIES, _KEYS = 0, 1


class Busiest(NamedTuple):
    """The rank whose queries have most pairs, and what the busiest ranks exchange.

    Args:
        rank: its number.
        pairs: of its queries.
        rows: row-heads that a rank receives or sends in forward, whichever are more.
        partners: ranks that send one rank some.
    """

    rank: int
    pairs: int
    rows: int
    partners: int


class Group(NamedTuple):
    """An exchange, and the kernels that wait for its rows.

    Args:
        rows: row-heads that come to the rank or that it sends, whichever are more.
        messages: that come at the same time.
        seconds: of the kernels.
    """

    rows: float
    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Launches:
    """One direction of a rank: seconds of the kernels that wait for no row, and the others."""

    own: float
    groups: tuple[Group, ...]

    @property
    def kernels(self) -> float:
        """Seconds of all kernels."""
        return self.own + sum(group.seconds for group in self.groups)


def finished(
    launches: Launches,
    there: Callable[[Group], float],
    home: Callable[[Group], float] | None = None,
) -> float:
    """When a rank is done that began at 0.

    An exchange begins after the kernels that were launched before it and the exchange before it.
    The rows of the next group travel while those of this one are computed with, and gradients go
    home while those of the next are computed.

    Args:
        launches: of one direction.
        there: seconds of the exchange of a group's rows.
        home: seconds of that of their gradients, in backward.
    """
    first, *others = launches.groups
    computed, link = launches.own, there(first)
    arrived, gradients = link, 0.0
    for group, ahead in zip(launches.groups, [*others, None], strict=True):
        coming = 0.0
        if ahead is not None:
            link = coming = max(link, computed) + there(ahead)
        computed = max(computed, arrived) + group.seconds
        if home is not None:
            computed = max(computed, gradients)
            link = gradients = max(link, computed) + home(group)
        arrived = coming
    return max(computed, gradients)


def launches_of(call: Call, layout: Layout, busiest: Busiest) -> dict[str, Launches] | None:
    """Launches of each direction; None where rows go through kernels that were not timed."""
    if not runs_tiles(call, layout):
        return None
    if layout.ring_size <= _MOST_RANKS and work.listed(call.problem) == call.problem:
        return counted(call, layout, busiest.rank)
    return estimated(call, layout, busiest)


def runs_tiles(call: Call, layout: Layout) -> bool:
    """Whether a ring runs one GPU's tiles, cut at the shards, if received rows fill blocks."""
    if call.backend != GLUON or work.period(call.problem) > work.LONGEST_PERIOD:
        return False
    ranks = {0, 1 % layout.ring_size, layout.ring_size // 2, layout.ring_size - 1}
    return all(own_rows(call.problem, *_shard(layout, rank)) is not None for rank in ranks)


@lru_cache(maxsize=64)
def counted(call: Call, layout: Layout, rank: int) -> dict[str, Launches] | None:
    """Launches with the blocks of their tables; None where the ring has no tables for the rank."""
    plan = plan_rank(call.problem, layout, rank, call.buffer_shards)
    blocks = (make(call.head_dim).block for make in (hopper.forward_blocks, hopper.backward_blocks))
    tiled = tiled_plan(plan, hopper.HALF, *blocks, MOST_VIEWS)
    if tiled is None:
        return None
    travel = [_travelling(plan, group) for group in range(len(plan.groups))]
    own, groups = _launched(call, (FORWARD, _QUERIES), tiled.forward)
    forward = Launches(own, tuple(Group(*x, y) for x, y in zip(travel, groups, strict=True)))
    own, groups = _launched(call, (BACKWARD, _QUERIES), tiled.backward)
    keys = BACKWARD, _KEYS
    own += sum(_seconds(call, keys, x, call.is_causal) for x in (tiled.keys.kept, tiled.keys.sent))
    backward = Launches(
        own,
        tuple(
            Group(*x, seconds + _seconds(call, keys, table, is_causal=False))
            for x, seconds, table in zip(travel, groups, tiled.received, strict=True)
        ),
    )
    return {FORWARD: forward, BACKWARD: backward}


def _launched(call: Call, kind: tuple[str, int], queries: QueryTiles) -> tuple[float, list[float]]:
    """Seconds of tiles that wait for nothing, and of those that wait for each group of rows."""
    if queries.early is None:
        own = _seconds(call, kind, queries.own, call.is_causal)
        # Causality hides received rows from none of the tiles that stream them alone.
        return own, [_seconds(call, kind, table, is_causal=False) for table in queries.groups]
    both = (_seconds(call, kind, table, call.is_causal) for table in (queries.early, queries.late))
    early, late = both
    return early, [late]


def _seconds(
    call: Call, kind: tuple[str, int], table: StreamTable | None, is_causal: bool
) -> float:
    """Of one launch of a kernel (direction, number) compiled with or without causality."""
    if table is None:
        return 0.0
    rates, (direction, number) = work.fitted(), kind
    rate = work.rate_of(rates, GLUON, direction, call.head_dim)
    units = work.kernel_units(
        tiles.blocks_of_table(table),
        tiles.kernels(GLUON, direction, call.head_dim)[number],
        call.batch,
        rate.slots[number],
        rate.price(is_causal),
        rates.multiprocessors,
    )
    return units * rate.picoseconds * 1e-12


def _travelling(plan: RankPlan, group: int) -> tuple[int, int]:
    """Row-heads of an exchange, of the way that has more, and its messages."""

    def row_heads(messages: list[Message]) -> int:
        return sum(
            len(rows) * len(key_class.heads)
            for message in messages
            for key_class, rows in zip(plan.classes, message.rows, strict=True)
        )

    come = list(plan.received(group))
    go = [planned.sent for planned in plan.groups[group] if planned.sent is not None]
    return max(row_heads(come), row_heads(go)), max(len(come), len(go))


def estimated(call: Call, layout: Layout, busiest: Busiest) -> dict[str, Launches] | None:
    """Launches of the own rows as of one GPU, and of others by pairs; exchanges that are alike.

    None where a message may hold too few rows of a residue for a block.
    """
    problem, rates = call.problem, work.fitted()
    own = own_rows(problem, *_shard(layout, busiest.rank))
    assert own is not None, "runs_tiles asks for own rows that are a sequence"
    widest = max(branch.dilation_rate for branch in problem.pattern.branches)
    block = hopper.forward_blocks(call.head_dim).block
    if busiest.partners and min(layout.lengths) // widest < block:
        return None
    together = min(steps_together(problem, layout, call.buffer_shards), max(1, busiest.partners))
    exchanges = max(1, -(-busiest.partners // together))
    others = (busiest.pairs - cost.visible_pairs(own)) / cost.visible_pairs(problem)
    found = {}
    for direction in DIRECTIONS:
        kind = GLUON, direction, call.head_dim, call.batch, rates
        seconds = others * work.seconds(problem, *kind) / exchanges
        group = Group(busiest.rows / exchanges, together, seconds)
        found[direction] = Launches(work.seconds(own, *kind), (group,) * exchanges)
    return found


def _shard(layout: Layout, rank: int) -> tuple[int, int]:
    """First row and number of rows."""
    return sum(layout.lengths[:rank]), layout.lengths[rank]


def own_rows(problem: Problem, begin: int, length: int) -> Problem | None:
    """What `schedule.own` finds for rows begin:begin + length, without listing them."""
    branches = []
    for one in problem.pattern.branches:
        w, place = one.segment_length, begin % one.segment_length
        if place and (place % one.dilation_rate or place + length > w):
            return None
        branches.append(Branch(length if place else w, one.dilation_rate))
    pattern = DilationPattern.from_branches(branches, problem.offsets)
    return Problem(pattern, length, problem.num_heads, problem.num_kv_heads, problem.is_causal)
