"""Seconds of one forward and backward of a rank: its kernels, and what it waits for rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import cost
from ..cost import Exchange, Links
from ..layout import Layout
from . import tiles, work
from .ring_launches import Busiest, Group, finished, launches_of
from .tiles import BACKWARD, FORWARD

if TYPE_CHECKING:
    from .planning import Call


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one forward and backward of the busiest rank, and where they go.

    GPU time; a call takes longer where the host launches more slowly. For R > 1 on the Hopper
    kernels it follows the ring's launches: blocks of the tiles that run while rows travel, and of
    those that wait for them. Where a ring's rows go through kernels that were not timed it is a
    lower bound: the pairs at the rate of full blocks, computed once where `gluon` computes them
    once for several branches, beside all of the transfers.

    Args:
        forward: of the kernels.
        backward: of the kernels.
        exposed_forward: waiting for rows.
        exposed_backward: waiting for rows and gradients.
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


@dataclass(frozen=True, slots=True)
class Transport:
    """Which way one kind of exchange takes, and how long the largest one takes each way.

    Args:
        exchange: what travels at once, at most.
        chosen: `p2p` or `symmetric`, as the ring chooses.
        p2p: seconds by batched sends and receives.
        symmetric: seconds through symmetric memory; None where that is not known.
    """

    exchange: Exchange
    chosen: str
    p2p: float
    symmetric: float | None


def transports(call: Call, layout: Layout, links: Links) -> tuple[Transport, ...]:
    """The way of each kind of exchange of a ring, layout `sharded`; none where R = 1."""
    if layout.ring_size == 1:
        return ()
    found = cost.exchanges(
        call.problem,
        layout,
        replicated=False,
        batch=call.batch,
        head_dim=call.head_dim,
        itemsize=call.itemsize,
        buffer_shards=call.buffer_shards,
    )
    return tuple(
        Transport(
            one,
            cost.fastest(links, one),
            links.p2p.seconds(one.nbytes, one.messages),
            None if links.symmetric is None else links.symmetric.seconds(one.nbytes, one.messages),
        )
        for one in found
    )


def step_of(
    call: Call,
    layout: Layout,
    busiest: Busiest,
    ways: tuple[Transport, ...],
    links: Links,
) -> Step:
    """The kernels of the busiest rank, and what it waits for rows and, in backward, gradients.

    Args:
        call: what is planned.
        layout: contiguous shards.
        busiest: of the ranks.
        ways: of rows, and of gradients; none where R = 1.
        links: between the ranks.
    """
    rates, problem = work.fitted(), call.problem
    kinds = [(call.backend, direction, call.head_dim) for direction in tiles.DIRECTIONS]
    if layout.ring_size == 1:
        forward, backward = (work.seconds(problem, *kind, call.batch, rates) for kind in kinds)
        return Step(forward, backward, 0.0, 0.0, is_bound=False)
    elements = 2 * call.batch * call.head_dim
    itemsizes = call.itemsize, max(4, call.itemsize)
    there, home = (
        _exchange(links, way, elements * itemsize)
        for way, itemsize in zip(ways, itemsizes, strict=True)
    )
    launches = launches_of(call, layout, busiest)
    if launches is None:
        pairs = busiest.pairs * call.batch
        forward, backward = (work.least_seconds(problem, pairs, *kind, rates) for kind in kinds)
        every = Group(busiest.rows, max(1, busiest.partners), 0.0)
        moved = there(every), there(every) + home(every)
        waits = max(0.0, moved[0] - forward), max(0.0, moved[1] - backward)
    else:
        forward, backward = (launches[direction].kernels for direction in tiles.DIRECTIONS)
        waits = (
            finished(launches[FORWARD], there) - forward,
            finished(launches[BACKWARD], there, home) - backward,
        )
    return Step(forward, backward, *waits, is_bound=launches is None)


def _exchange(links: Links, way: Transport, row: int) -> Callable[[Group], float]:
    """Seconds of a group's exchange; `row` is bytes of a row-head."""
    link = links.p2p if way.chosen == "p2p" else links.symmetric
    assert link is not None, "only a link that is known is chosen"

    def seconds(group: Group) -> float:
        return link.seconds(group.rows * row, group.messages) if group.rows else 0.0

    return seconds
