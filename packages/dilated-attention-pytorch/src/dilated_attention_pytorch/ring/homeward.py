"""Gradients of received rows on their way home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..comm import Communicator, RankTask, Work
from ..schedule import Message, RankPlan
from .packing import block_shapes, flat_size, part_ways


@dataclass(slots=True)
class Homeward:
    """The return of one round's gradients, float32 (or float64) rows.

    Args:
        sent: the rows whose gradients come home; None where none were sent in the round.
        arrived: their gradients, packed as the rows were, once `works` are over.
        works: of all rounds of the group.
        held: what leaves.
    """

    sent: Message | None
    arrived: Tensor | None
    works: Sequence[Work]
    held: Tensor | None


def go_home(
    plan: RankPlan, group: int, gradient: Tensor | None, like: Tensor, comm: Communicator
) -> list[Homeward]:
    """Post the return of the gradients of a group's rows, which travel at the same time.

    Args:
        plan: of the rank.
        group: of the rounds in which the rows came.
        gradient: of all received rows of the group, as they were gathered; None where none came.
        like: (b, rows, heads, d) in the dtype of gradients that come home.
        comm: this rank's end of the ring.
    """
    b, _, _, d = like.shape
    rounds = plan.groups[group]
    leaving = [] if gradient is None else _by_message(plan, group, gradient, b, d, comm)
    sizes = [
        0 if x.sent is None else flat_size(block_shapes(x.sent, plan.classes, b, d)) for x in rounds
    ]
    arriving = comm.workspace.empty(sum(sizes), like.dtype, like.device).split(sizes)
    sends = [
        (x.source, tensor)
        for x, tensor in zip([x for x in rounds if x.received is not None], leaving, strict=True)
    ]
    receives = [
        (x.target, tensor) for x, tensor in zip(rounds, arriving, strict=True) if x.sent is not None
    ]
    works = [comm.exchange("gradient", sends, receives)] if sends or receives else []
    left = iter(leaving)
    return [
        Homeward(
            x.sent,
            None if x.sent is None else tensor,
            works if number == 0 else (),
            None if x.received is None else next(left),
        )
        for number, (x, tensor) in enumerate(zip(rounds, arriving, strict=True))
    ]


def come_home(home: list[Homeward], add: Callable[[Message, Tensor], None]) -> RankTask[None]:
    """Wait for each round and add what came; in their own order, so that sums are repeatable."""
    while home:
        one = home.pop(0)
        yield from one.works
        if one.sent is not None and one.arrived is not None:
            add(one.sent, one.arrived)


def _by_message(
    plan: RankPlan, group: int, flat: Tensor, batch: int, head_dim: int, comm: Communicator
) -> list[Tensor]:
    """Gradients of the rows of a group, one buffer for each of its messages."""
    gathered = plan.gathered(group)
    if len(gathered.places) == 1:
        return [flat]
    return part_ways(gathered, flat, batch, head_dim, comm.workspace)
