"""Cutting tensors into a ring's shards and putting them together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..layout import Layout, make_layout
from ..ring.indexing import rank_rows
from .group import Order, communicator, order_map

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..comm.process_group import ProcessGroupCommunicator


def _end(
    group: object, ring_size: int | None, rank: int | None
) -> tuple[ProcessGroupCommunicator | None, int, int]:
    """(real ring or None, ring size, rank)."""
    if group is not None:
        comm = communicator(group, ring_size, simulate=False)
        assert comm is not None
        if rank is not None and rank != comm.rank:
            raise ValueError(f"rank must be None or the group's {comm.rank}, got {rank}")
        return comm, comm.size, comm.rank
    if ring_size is None or rank is None:
        raise ValueError("pass group=…, or ring_size=… and rank=…")
    if not 0 <= rank < ring_size:
        raise ValueError(f"rank must lie in [0, {ring_size}), got {rank}")
    return None, ring_size, rank


def positions(
    n: int,
    *,
    group: ProcessGroup | DeviceMesh | None = None,
    ring_size: int | None = None,
    rank: int | None = None,
    order: Order = "contiguous",
    shard_lengths: Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Global positions of a rank's rows in storage order, int64 (n_rank,).

    What rotary embeddings, position embeddings and losses of a sharded sequence need.

    Args:
        n: global sequence length.
        group: a ring's group, which gives ring_size and rank.
        ring_size: number of ranks, where no group is given.
        rank: whose rows, where no group is given.
        order: `contiguous`, `zigzag` or an index map.
        shard_lengths: rows per rank, as even as possible where None.
        device: of the result.

    Raises:
        ValueError: neither group nor ring_size and rank, or values that do not fit.
    """
    _, size, own = _end(group, ring_size, rank)
    layout = make_layout(n, size, order_map(order), shard_lengths)
    return rank_rows(layout, own, device)


def shard(
    tensor: Tensor,
    *,
    group: ProcessGroup | DeviceMesh | None = None,
    ring_size: int | None = None,
    rank: int | None = None,
    order: Order = "contiguous",
    shard_lengths: Sequence[int] | None = None,
    dim: int = 1,
) -> Tensor:
    """A rank's rows of a full tensor, a copy; differentiable.

    Invariant: `unshard` of all ranks' shards is the tensor.

    Args:
        tensor: has the global sequence on `dim`.
        group: a ring's group, which gives ring_size and rank.
        ring_size: number of ranks, where no group is given.
        rank: whose rows, where no group is given.
        order: `contiguous`, `zigzag` or an index map.
        shard_lengths: rows per rank, as even as possible where None.
        dim: sequence dimension, 1 for (b, n, h, d) and (b, n, e).

    Raises:
        ValueError: as `positions`.
    """
    rows = positions(
        tensor.shape[dim],
        group=group,
        ring_size=ring_size,
        rank=rank,
        order=order,
        shard_lengths=shard_lengths,
        device=tensor.device,
    )
    return tensor.index_select(dim, rows)


def unshard(
    shards: Tensor | Sequence[Tensor],
    *,
    group: ProcessGroup | DeviceMesh | None = None,
    order: Order = "contiguous",
    shard_lengths: Sequence[int] | None = None,
    dim: int = 1,
) -> Tensor:
    """The full tensor from all ranks' rows; differentiable.

    With a group every rank passes its own rows and gets the full tensor; the gradient of a rank's
    rows is that of the sum of the ranks' losses.

    Args:
        shards: this rank's rows (with a group), or the list of all ranks' rows.
        group: a ring's group.
        order: `contiguous`, `zigzag` or an index map, as in `shard`.
        shard_lengths: rows per rank; only checked against the shards.
        dim: sequence dimension.

    Raises:
        ValueError: lengths that do not fit.
        TypeError: a list together with a group, or a tensor without one.
    """
    if group is None:
        if isinstance(shards, Tensor):
            raise TypeError("without a group pass the list of all ranks' shards")
        lengths = [x.shape[dim] for x in shards]
        layout = _checked(lengths, order, shard_lengths)
        return _in_order(list(shards), layout, dim)
    if not isinstance(shards, Tensor):
        raise TypeError("with a group pass this rank's shard, a tensor")
    comm, _, _ = _end(group, None, None)
    assert comm is not None
    lengths = [row[0] for row in comm.gather_numbers([shards.shape[dim]])]
    layout = _checked(lengths, order, shard_lengths)
    gathered: Tensor = _GatherShards.apply(  # type: ignore[no-untyped-call]
        shards.movedim(dim, 0), layout, comm
    )
    return gathered.movedim(0, dim)


def _checked(lengths: Sequence[int], order: Order, shard_lengths: Sequence[int] | None) -> Layout:
    if shard_lengths is not None and list(shard_lengths) != list(lengths):
        raise ValueError(f"shards have {list(lengths)} rows, expected {list(shard_lengths)}")
    return make_layout(sum(lengths), len(lengths), order_map(order), lengths)


def _in_order(shards: list[Tensor], layout: Layout, dim: int) -> Tensor:
    stored = torch.cat([rank_rows(layout, r, "cpu") for r in range(len(shards))])
    back = torch.empty_like(stored)
    back[stored] = torch.arange(len(stored))
    joined = torch.cat(shards, dim)
    return joined.index_select(dim, back.to(joined.device))


class _GatherShards(torch.autograd.Function):
    """All ranks' rows on every rank; backward sums the ranks' gradients of a rank's rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, layout: Layout, comm: ProcessGroupCommunicator) -> Tensor:
        ctx.layout, ctx.comm = layout, comm
        padded = own.new_zeros((max(layout.lengths), *own.shape[1:]))
        padded[: own.shape[0]] = own
        parts = comm.all_gather(padded)
        rows = [part[:length] for part, length in zip(parts, layout.lengths, strict=True)]
        return _in_order(rows, layout, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = ctx.comm.all_reduce_sum(gradient.contiguous().clone())
        rows = rank_rows(ctx.layout, ctx.comm.rank, total.device)
        return total.index_select(0, rows), None, None
