"""Backward of one rank, sharded layout: rows travel again, their gradients travel home."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..comm import Communicator, RankTask, Work
from ..kernels.carry import compute_dtype
from ..kernels.options import KernelOptions, KeyGradient, KeyPart, QuerySide, Result
from ..schedule import RankPlan, Round, RunList
from .alone import whole_sequence
from .lanes import backward_terms
from .packing import add_back, block_shapes, flat_size, part_ways, views
from .shard import Shard, Transfer, arrive, collect
from .shifted import fetch_queries, return_gradients

Gradients = tuple[Tensor, Tensor, Tensor]


class _Homeward:
    """The return of one round's gradients, posted on construction: float32 (or float64) rows."""

    def __init__(
        self,
        plan: RankPlan,
        planned: Round,
        gradient: Tensor | None,
        dkey: Tensor,
        comm: Communicator,
    ) -> None:
        b, _, _, d = dkey.shape
        self._plan, self._sent = plan, planned.sent
        self._gradient = gradient
        self._flat: Tensor | None = None
        sends: list[tuple[int, Tensor]] = []
        receives: list[tuple[int, Tensor]] = []
        if gradient is not None:
            sends.append((planned.source, gradient))
        if planned.sent is not None:
            size = flat_size(block_shapes(planned.sent, plan.classes, b, d))
            self._flat = dkey.new_empty(size)
            receives.append((planned.target, self._flat))
        self.works: list[Work] = []
        if sends or receives:
            self.works.append(comm.exchange("gradient", sends, receives))

    def add_to(self, dkey: Tensor, dvalue: Tensor) -> None:
        """Add what came home; rounds are added in their own order, so sums are repeatable."""
        if self._sent is not None and self._flat is not None:
            add_back(self._sent, self._plan.classes, self._flat, dkey, dvalue)


def differentiate(
    side: QuerySide,
    shifted: dict[int, QuerySide],
    parts: Sequence[KeyPart],
    found: tuple[RunList, ...],
    gradients: Sequence[KeyGradient],
    options: KernelOptions,
) -> None:
    """Add gradients of keys, each branch with the queries that it answers."""
    if not shifted:
        options.backend.backward(side, parts, found, gradients, options)
        return
    for branch in range(options.problem.num_branches):
        asked = shifted.get(branch, side)
        some = tuple(runs.of_branch(branch) for runs in found)
        options.backend.backward(asked, parts, some, gradients, options)


def backward_rank(
    plan: RankPlan,
    shard: Shard,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
    options: KernelOptions,
    comm: Communicator,
) -> RankTask[Gradients]:
    """(dq, dk, dv) of the rank's own rows for the sum of all ranks' losses.

    With the global lse and delta the parts of the keys are independent (semantics 3): each rank
    differentiates its own queries against every piece, and sends the piece's dk, dv home.
    """
    alone = whole_sequence(plan, options)
    if alone is not None and plan.isolated:
        return alone.backward(shard, dout, dlse, result)
    dtype = compute_dtype(shard.query.dtype)
    lse, delta = backward_terms(dout, dlse, result, options)
    queries = yield from fetch_queries(plan, shard.query, comm)
    ahead = [Transfer(plan, x, shard, comm) for x in plan.groups[0]] if plan.groups else []
    if alone is not None:
        dquery, dkey, dvalue = alone.backward(shard, dout, dlse, result, wide=True)
    else:
        dquery, dkey, dvalue = (_zeros(x, dtype) for x in (shard.query, shard.key, shard.value))
    side = QuerySide(shard.query, dout, lse, delta, dquery)
    shifted = {
        branch: QuerySide(query, dout, lse, delta, _zeros(query, dtype))
        for branch, query in queries.items()
    }
    if alone is None:
        own = KeyPart(shard.key, shard.value, shard.key_mask)
        differentiate(side, shifted, [own], (plan.local_runs(),), [(dkey, dvalue)], options)
    home: list[_Homeward] = []
    for index, planned in enumerate(plan.groups):
        transfers, ahead = ahead, []
        if index + 1 < len(plan.groups):
            ahead = [Transfer(plan, x, shard, comm) for x in plan.groups[index + 1]]
        yield from arrive(transfers)
        gradients = _gradients(plan, index, transfers, side, shifted, dkey, options)
        del transfers
        yield from _come_home(home, dkey, dvalue)
        home = [
            _Homeward(plan, x, gradients.pop(0) if x.received is not None else None, dkey, comm)
            for x in planned
        ]
    yield from _come_home(home, dkey, dvalue)
    answered = {branch: side.dquery for branch, side in shifted.items()}
    yield from return_gradients(plan, answered, side.dquery, comm)
    source = shard.query.dtype
    return side.dquery.to(source), dkey.to(source), dvalue.to(source)


def _zeros(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous zeros: gradients do not take over the strides of a transposed input."""
    return torch.zeros(like.shape, dtype=dtype, device=like.device)


def _come_home(home: list[_Homeward], dkey: Tensor, dvalue: Tensor) -> RankTask[None]:
    while home:
        one = home.pop(0)
        yield from one.works
        one.add_to(dkey, dvalue)


def _gradients(
    plan: RankPlan,
    group: int,
    transfers: list[Transfer],
    side: QuerySide,
    shifted: dict[int, QuerySide],
    dkey: Tensor,
    options: KernelOptions,
) -> list[Tensor]:
    """Gradients of the keys and values of each message of a group, packed as the message is."""
    parts = collect(plan, group, transfers)
    if not parts:
        return []
    b, _, _, d = dkey.shape
    gathered = plan.gathered(group)
    shapes = block_shapes(gathered, plan.classes, b, d)
    flat = dkey.new_zeros(flat_size(shapes))
    differentiate(side, shifted, parts, plan.remote_runs(group), views(flat, shapes), options)
    return [flat] if len(gathered.places) == 1 else part_ways(gathered, flat, b, d)
