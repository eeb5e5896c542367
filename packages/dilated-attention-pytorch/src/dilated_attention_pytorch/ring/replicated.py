"""Replicated layout: every rank has all queries, its own keys, and gets the whole result.

A rank computes each rank's chunk of the queries over its own keys, sends that float32 partial to
the chunk's owner, and the owner's finished rows go to everybody; so intermediates stay O(n / R).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..comm import Communicator, RankTask
from ..kernels.carry import Carry, compute_dtype, put, take
from ..kernels.options import KernelOptions, KeyPart, QuerySide, Result
from ..schedule import RankPlan
from ..schedule.partials import PartialBlock, partial_blocks
from ..typing import BoolArray, IntArray
from .backward import Gradients, differentiate, zeros
from .forward import attend
from .gather import gather_rows
from .indexing import index_tensor, rank_rows
from .lanes import backward_terms, finish
from .shifted import shifted_branches
from .trade import Blocks, trade


@dataclass(frozen=True, slots=True)
class ReplicatedInput:
    """All queries (b, n, H, d); the rank's own keys, values (b, n_rank, H_kv, d) and key mask."""

    query: Tensor
    key: Tensor
    value: Tensor
    key_mask: Tensor | None = None


class _Chunks:
    """A rank's view of the chunks of queries that the ranks own."""

    def __init__(self, plan: RankPlan, query: Tensor) -> None:
        self.plan, self.query = plan, query

    def rows(self, owner: int) -> Tensor:
        """Global positions of the chunk, as an index."""
        return rank_rows(self.plan.layout, owner, self.query.device)

    def shifted(self, owner: int) -> dict[int, Tensor]:
        """The chunk's queries in branches whose rows torchscale shifts."""
        found = {}
        for branch in shifted_branches(self.plan.problem):
            asked, real = self.asked(branch, owner)
            rows = self.query[:, index_tensor(asked, self.query.device)]
            keep = index_tensor(real, self.query.device)[None, :, None, None]
            found[branch] = torch.where(keep, rows, 0.0)
        return found

    def asked(self, branch: int, owner: int) -> tuple[IntArray, BoolArray]:
        """Which query answers at each of the chunk's positions, and whether there is one."""
        problem = self.plan.problem
        segment, place = problem.query_coordinates(branch, self.plan.layout.positions(owner))
        at = segment + place
        real = (place < problem.segment_length(branch)) & (at < problem.n)
        return np.where(real, at, 0), real

    def blocks(self, source: int, target: int) -> tuple[PartialBlock, ...]:
        """The partials that `source` gives to `target`."""
        return partial_blocks(self.plan.problem, self.plan.layout, source, target)


def forward_replicated(
    plan: RankPlan, given: ReplicatedInput, options: KernelOptions, comm: Communicator
) -> RankTask[Result]:
    """(out, lse) of all rows, equal on every rank; lane results of the rank's own chunk only."""
    chunks = _Chunks(plan, given.query)
    part = KeyPart(given.key, given.value, given.key_mask)
    rank, size = comm.rank, comm.size

    def compute(owner: int) -> Carry:
        chunk = given.query[:, chunks.rows(owner)]
        carry = Carry(chunk, options.lanes)
        attend(chunk, chunks.shifted(owner), [part], (plan.chunk_runs(owner),), carry, options)
        return carry

    own = compute(rank)

    def swap(target: int, source: int) -> RankTask[None]:
        out_blocks, in_blocks = chunks.blocks(rank, target), chunks.blocks(source, rank)
        partial = compute(target).finish() if out_blocks else None
        sent = _room(out_blocks, own.weighted, 1, comm)
        if partial is not None:
            _pack(out_blocks, partial[0], [x[..., :-1] for x in sent.views])
            _pack(out_blocks, partial[1], [x[..., -1] for x in sent.views])
        received = _room(in_blocks, own.weighted, 1, comm)
        yield from trade("partial", target, sent.flat, source, received.flat, comm)
        for block, values in zip(in_blocks, received.views, strict=True):
            for lane in range(options.lanes):
                out, lse = values[lane][..., :-1], values[lane][..., -1]
                own.add_partial(lane, block.rows, block.heads, out, lse)

    for step in range(1, size):
        yield from swap((rank + step) % size, (rank - step) % size)
    mine = finish(own, plan.queries, options, given.query.dtype)
    out, lse = yield from gather_rows(plan.layout, [mine.out, mine.lse], comm, "result")
    return Result(out, lse, mine.lane_out, mine.lane_lse)


def backward_replicated(
    plan: RankPlan,
    given: ReplicatedInput,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
    options: KernelOptions,
    comm: Communicator,
    *,
    full_keys: bool,
) -> RankTask[Gradients]:
    """(dq of all rows, dk, dv): dout is taken to be equal on every rank and is not summed.

    Args:
        plan: the rank's plan.
        given: inputs of the forward.
        result: its result.
        dout: (b, n, H, d).
        dlse: (b, n, H) or None.
        options: scale, dropout.
        comm: this rank's end of the ring.
        full_keys: the caller passed all keys and values and gets gradients of all of them.
    """
    chunks = _Chunks(plan, given.query)
    part = KeyPart(given.key, given.value, given.key_mask)
    rank, size, dtype = comm.rank, comm.size, compute_dtype(given.query.dtype)
    lse, delta = yield from _terms(plan, chunks, result, dout, dlse, options, comm)
    dkey, dvalue = (zeros(x, dtype) for x in (given.key, given.value))
    branches = shifted_branches(plan.problem)

    def compute(owner: int) -> Tensor:
        """(1 + shifted branches, b, n_owner, H, d) gradients of a chunk's queries."""
        rows = chunks.rows(owner)
        queries = [given.query[:, rows], *chunks.shifted(owner).values()]
        gradient = torch.zeros((len(queries), *queries[0].shape), dtype=dtype, device=rows.device)
        sides = [
            QuerySide(query, dout[:, rows], lse[:, :, rows], delta[:, :, rows], into)
            for query, into in zip(queries, gradient, strict=True)
        ]
        shifted = dict(zip(branches, sides[1:], strict=True))
        found = (plan.chunk_runs(owner),)
        differentiate(sides[0], shifted, [part], found, [(dkey, dvalue)], options)
        return gradient

    own = compute(rank)

    def swap(target: int, source: int) -> RankTask[None]:
        out_blocks, in_blocks = chunks.blocks(rank, target), chunks.blocks(source, rank)
        gradient = compute(target) if out_blocks else own
        sent = _room(out_blocks, own, 0, comm)
        _pack(out_blocks, gradient, sent.views)
        del gradient
        received = _room(in_blocks, own, 0, comm)
        yield from trade("partial", target, sent.flat, source, received.flat, comm)
        for block, values in zip(in_blocks, received.views, strict=True):
            for lane, total in enumerate(own):
                put(
                    total,
                    block.rows,
                    block.heads,
                    take(total, block.rows, block.heads) + values[lane],
                )

    for step in range(1, size):
        yield from swap((rank + step) % size, (rank - step) % size)
    if not branches:
        own = own.to(given.query.dtype)
    found = yield from gather_rows(plan.layout, list(own), comm, "result")
    dquery = found[0]
    for branch, gradient in zip(branches, found[1:], strict=True):
        for owner in range(size):
            asked, real = chunks.asked(branch, owner)
            rows = chunks.rows(owner)[index_tensor(real, dquery.device)]
            dquery[:, index_tensor(asked[real], dquery.device)] += gradient[:, rows]
    source_dtype = given.query.dtype
    dkey, dvalue = dkey.to(source_dtype), dvalue.to(source_dtype)
    if full_keys:
        dkey, dvalue = yield from gather_rows(plan.layout, [dkey, dvalue], comm, "gradient")
    return dquery.to(source_dtype), dkey, dvalue


def _terms(
    plan: RankPlan,
    chunks: _Chunks,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
    options: KernelOptions,
    comm: Communicator,
) -> RankTask[tuple[Tensor, Tensor]]:
    """(lse, delta) of all rows; with lanes each owner knows its chunk's and tells the others."""
    if result.lane_out is None:
        return backward_terms(dout, dlse, result, options)
    rows = chunks.rows(plan.rank)
    mine = Result(result.out[:, rows], result.lse[:, rows], result.lane_out, result.lane_lse)
    lse, delta = backward_terms(
        dout[:, rows], None if dlse is None else dlse[:, rows], mine, options
    )
    both = torch.stack([lse, delta]).permute(2, 3, 0, 1, 4)
    (whole,) = yield from gather_rows(plan.layout, [both], comm, "result")
    lse, delta = whole.permute(2, 3, 0, 1, 4).contiguous()
    return lse, delta


def _room(
    blocks: tuple[PartialBlock, ...], like: Tensor, further: int, comm: Communicator
) -> Blocks:
    """A message of the blocks' rows and heads of (lanes, b, n_rank, H, d + further)."""
    lanes, b, _, _, d = like.shape
    shapes = [(lanes, b, len(x.rows), len(x.heads), d + further) for x in blocks]
    return Blocks(shapes, like, comm)


def _pack(blocks: tuple[PartialBlock, ...], values: Tensor, into: Sequence[Tensor]) -> None:
    """Copy the blocks' rows and heads of (lanes, b, n_rank, H, ...) into a message."""
    for block, views in zip(blocks, into, strict=True):
        for lane, view in zip(values, views, strict=True):
            view.copy_(take(lane, block.rows, block.heads))
