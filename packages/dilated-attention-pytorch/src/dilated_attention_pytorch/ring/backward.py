"""Backward of one rank, sharded layout: rows travel again, their gradients travel home."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..comm import Communicator, RankTask, Workspace
from ..kernels.carry import compute_dtype
from ..kernels.options import KernelOptions, KeyGradient, KeyPart, QuerySide, Result
from ..schedule import Message, RankPlan, RunList
from .alone import whole_sequence
from .homeward import Homeward, come_home, go_home
from .lanes import backward_terms
from .packing import add_back, block_shapes, flat_size, views
from .shard import Shard, Transfer, arrive, collect, depart
from .shifted import fetch_queries, return_gradients
from .tiled import backward_tiled, of_rank

Gradients = tuple[Tensor, Tensor, Tensor]


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
    tiled = of_rank(plan, options, shard)
    if tiled is not None:
        found: Gradients = yield from backward_tiled(
            plan, tiled, shard, result, dout, dlse, options, comm
        )
        return found
    dtype = compute_dtype(shard.query.dtype)
    lse, delta = backward_terms(dout, dlse, result, options)
    queries = yield from fetch_queries(plan, shard.query, comm)
    ahead = depart(plan, 0, shard, comm)
    if alone is not None:
        dquery, dkey, dvalue = alone.backward(shard, dout, dlse, result, wide=True)
    else:
        dquery, dkey, dvalue = (zeros(x, dtype) for x in (shard.query, shard.key, shard.value))
    side = QuerySide(shard.query, dout, lse, delta, dquery)
    shifted = {
        branch: QuerySide(query, dout, lse, delta, zeros(query, dtype))
        for branch, query in queries.items()
    }
    if alone is None:
        own = KeyPart(shard.key, shard.value, shard.key_mask)
        differentiate(side, shifted, [own], (plan.local_runs(),), [(dkey, dvalue)], options)

    def add(message: Message, arrived: Tensor) -> None:
        add_back(message, plan.classes, arrived, dkey, dvalue)

    home: list[Homeward] = []
    for index in range(len(plan.groups)):
        transfers, ahead = ahead, depart(plan, index + 1, shard, comm)
        yield from arrive(transfers)
        gradient = _gradient(plan, index, transfers, side, shifted, dkey, options, comm.workspace)
        del transfers
        yield from come_home(home, add)
        home = go_home(plan, index, gradient, dkey, comm)
        del gradient
    yield from come_home(home, add)
    answered = {branch: side.dquery for branch, side in shifted.items()}
    yield from return_gradients(plan, answered, side.dquery, comm)
    source = shard.query.dtype
    return side.dquery.to(source), dkey.to(source), dvalue.to(source)


def zeros(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous zeros: gradients do not take over the strides of a transposed input."""
    return torch.zeros(like.shape, dtype=dtype, device=like.device)


def _gradient(
    plan: RankPlan,
    group: int,
    transfers: list[Transfer],
    side: QuerySide,
    shifted: dict[int, QuerySide],
    dkey: Tensor,
    options: KernelOptions,
    workspace: Workspace,
) -> Tensor | None:
    """Gradients of the keys and values received in a group, as they were gathered."""
    parts = collect(plan, group, transfers)
    if not parts:
        return None
    b, _, _, d = dkey.shape
    gathered = plan.gathered(group)
    shapes = block_shapes(gathered, plan.classes, b, d)
    flat = workspace.empty(flat_size(shapes), dkey.dtype, dkey.device).zero_()
    differentiate(side, shifted, parts, plan.remote_runs(group), views(flat, shapes), options)
    return flat
