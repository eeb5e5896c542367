"""Forward and backward of a call, on a real rank or R simulated ones, and the autograd function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..comm import Communicator, LoopbackWorld, RankTask, run_ranks
from ..kernels.options import KernelOptions, Result, WholeBackend
from ..layout import Layout
from ..schedule import RankPlan, plan_rank
from .backward import Gradients, backward_rank
from .deterministic import forward_rank_deterministic
from .forward import forward_rank
from .indexing import rank_rows
from .replicated import ReplicatedInput, backward_replicated, forward_replicated
from .shard import Shard


@dataclass(frozen=True, slots=True)
class RealRing:
    """This process's end of a ring over a process group.

    Args:
        comm: the transport.
        run: runs a rank's coroutine to its end.
        before_backward: called first in backward; the ranks make sure that they all entered it.
    """

    comm: Communicator
    run: Callable[[RankTask[Any]], Any]
    before_backward: Callable[[], None]


@dataclass(frozen=True, slots=True)
class RingCall:
    """All of a call but query, key and value.

    Args:
        options: problem, scale, dropout, kernels for parts of the keys.
        layout: who holds which rows.
        replicated: layout `replicated`, not `sharded`.
        key_mask: mask of the keys passed, True = attend, or None.
        deterministic: forward bits do not depend on the ring.
        buffer_shards: receive buffers, in shards.
        full_keys: replicated on a real ring: all keys were passed, not only the rank's own.
        ring: a real ring; None to simulate every rank in this process.
        whole: kernels for a whole sequence, for R = 1; None to meet the keys part by part.
    """

    options: KernelOptions
    layout: Layout
    replicated: bool = False
    key_mask: Tensor | None = None
    deterministic: bool = False
    buffer_shards: int = 2
    full_keys: bool = False
    ring: RealRing | None = None
    whole: WholeBackend | None = None

    def plan(self, rank: int) -> RankPlan:
        """The plan of one rank."""
        return plan_rank(self.options.problem, self.layout, rank, self.buffer_shards)

    def own(self, tensor: Tensor, rank: int, dim: int = 1) -> Tensor:
        """A copy of a rank's rows: a rank holds its own rows and nothing else."""
        if self.layout.ring_size == 1 and self.layout.contiguous:
            return tensor
        if self.layout.contiguous:
            begin, length = sum(self.layout.lengths[:rank]), self.layout.lengths[rank]
            return tensor.narrow(dim, begin, length).clone(memory_format=torch.contiguous_format)
        rows = rank_rows(self.layout, rank, tensor.device)
        return tensor.index_select(dim, rows)

    def join(self, parts: list[Tensor], dim: int = 1) -> Tensor:
        """The inverse of `own`: all ranks' rows in global order."""
        if self.layout.ring_size == 1 and self.layout.contiguous:
            return parts[0]
        if self.layout.contiguous:
            return torch.cat(parts, dim)
        shape = list(parts[0].shape)
        shape[dim] = self.layout.n
        whole = parts[0].new_empty(shape)
        for rank, part in enumerate(parts):
            rows = rank_rows(self.layout, rank, whole.device)
            whole.index_copy_(dim, rows, part)
        return whole


def _forward_task(
    call: RingCall, plan: RankPlan, given: Shard, comm: Communicator
) -> RankTask[Result]:
    """One rank's forward; `given` holds the rank's rows (and, replicated, all queries)."""
    if call.replicated:
        whole = ReplicatedInput(given.query, given.key, given.value, given.key_mask)
        return forward_replicated(plan, whole, call.options, comm)
    if call.deterministic and call.layout.contiguous:
        return forward_rank_deterministic(plan, given, call.options, comm)
    return forward_rank(plan, given, call.options, comm)


def _backward_task(
    call: RingCall,
    plan: RankPlan,
    given: Shard,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
    comm: Communicator,
) -> RankTask[Gradients]:
    if call.replicated:
        whole = ReplicatedInput(given.query, given.key, given.value, given.key_mask)
        return backward_replicated(
            plan, whole, result, dout, dlse, call.options, comm, full_keys=call.full_keys
        )
    return backward_rank(plan, given, result, dout, dlse, call.options, comm)


def _given(call: RingCall, query: Tensor, key: Tensor, value: Tensor, rank: int) -> Shard:
    """What a simulated rank owns of full tensors, or a real one of what it was passed."""
    mask = call.key_mask
    if call.ring is None or (call.replicated and call.full_keys):
        key, value = call.own(key, rank), call.own(value, rank)
        mask = None if mask is None else call.own(mask, rank)
    if call.ring is None and not call.replicated:
        query = call.own(query, rank)
    return Shard(query, key, value, mask)


def _no_autocast(query: Tensor) -> AbstractContextManager[None]:
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def compute_forward(call: RingCall, query: Tensor, key: Tensor, value: Tensor) -> Result:
    """Run the call's forward, with autocast off: dtypes are what the call was given."""
    with _no_autocast(query):
        return _forward(call, query, key, value)


def compute_backward(
    call: RingCall,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
) -> Gradients:
    """Run the call's backward, with autocast off."""
    with _no_autocast(query):
        return _backward(call, query, key, value, result, dout, dlse)


def _forward(call: RingCall, query: Tensor, key: Tensor, value: Tensor) -> Result:
    if call.whole is not None:
        return call.whole.forward(query, key, value, call.key_mask, call.options)
    if call.ring is not None:
        comm = call.ring.comm
        given = _given(call, query, key, value, comm.rank)
        found: Result = call.ring.run(_forward_task(call, call.plan(comm.rank), given, comm))
        return found
    size = call.layout.ring_size
    world = LoopbackWorld(size)
    results = run_ranks(
        [
            _forward_task(
                call,
                call.plan(rank),
                _given(call, query, key, value, rank),
                world.communicator(rank),
            )
            for rank in range(size)
        ]
    )
    lane_out, lane_lse = (
        call.join(lanes, dim=2) if lanes else None
        for lanes in (
            [r.lane_out for r in results if r.lane_out is not None],
            [r.lane_lse for r in results if r.lane_lse is not None],
        )
    )
    if call.replicated:
        return Result(results[0].out, results[0].lse, lane_out, lane_lse)
    out, lse = call.join([r.out for r in results]), call.join([r.lse for r in results])
    return Result(out, lse, lane_out, lane_lse)


def _backward(
    call: RingCall,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
) -> Gradients:
    if call.whole is not None:
        mask, options = call.key_mask, call.options
        return call.whole.backward(query, key, value, mask, dout, dlse, result, options)
    if call.ring is not None:
        comm = call.ring.comm
        call.ring.before_backward()
        given = _given(call, query, key, value, comm.rank)
        task = _backward_task(call, call.plan(comm.rank), given, result, dout, dlse, comm)
        gradients: Gradients = call.ring.run(task)
        return gradients
    size = call.layout.ring_size
    world = LoopbackWorld(size)

    def own_result(rank: int) -> Result:
        lanes = (
            None if lane is None else call.own(lane, rank, dim=2)
            for lane in (result.lane_out, result.lane_lse)
        )
        if call.replicated:
            return Result(result.out, result.lse, *lanes)
        return Result(call.own(result.out, rank), call.own(result.lse, rank), *lanes)

    def own_gradient(gradient: Tensor | None, rank: int) -> Tensor | None:
        if gradient is None or call.replicated:
            return gradient
        return call.own(gradient, rank)

    tasks = []
    for rank in range(size):
        dout_rank = own_gradient(dout, rank)
        assert dout_rank is not None
        tasks.append(
            _backward_task(
                call,
                call.plan(rank),
                _given(call, query, key, value, rank),
                own_result(rank),
                dout_rank,
                own_gradient(dlse, rank),
                world.communicator(rank),
            )
        )
    dquery, dkey, dvalue = (list(parts) for parts in zip(*run_ranks(tasks), strict=True))
    whole = dquery[0] if call.replicated else call.join(dquery)
    return whole, call.join(dkey), call.join(dvalue)


class RingAttention(torch.autograd.Function):
    """(out, lse) of a call; saves query, key, value, out, lse and the key mask.

    torchscale's modes, which mix one result per branch, save those results as well.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: RingCall
    ) -> tuple[Tensor, Tensor]:
        """Semantics 2 over the ring."""
        result = compute_forward(call, query, key, value)
        ctx.call = call
        ctx.set_materialize_grads(False)
        # The mask is saved for autograd's check that nobody changes it before backward.
        lanes = result.lane_out, result.lane_lse
        ctx.save_for_backward(query, key, value, result.out, result.lse, *lanes, call.key_mask)
        if call.options.problem.pattern.detach_mix:
            ctx.mark_non_differentiable(result.lse)
        return result.out, result.lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dout: Tensor | None, dlse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Semantics 3 over the ring."""
        query, key, value, out, lse, lane_out, lane_lse, _ = ctx.saved_tensors
        if dout is None:
            dout = torch.zeros_like(out)
        result = Result(out, lse, lane_out, lane_lse)
        return (*compute_backward(ctx.call, query, key, value, result, dout, dlse), None)
