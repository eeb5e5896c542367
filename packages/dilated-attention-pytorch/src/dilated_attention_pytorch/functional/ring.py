"""The operator over a ring of ranks, real or simulated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..layout import Layout, make_layout
from ..pattern import DilationPattern
from . import validation
from .call import (
    CallOptions,
    RingOptions,
    apply,
    autocast,
    build,
    check_local,
    run_local,
    seed_tensor,
)
from .group import Order, communicator, order_map

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..comm.process_group import ProcessGroupCommunicator


def ring_dilated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    *,
    group: ProcessGroup | DeviceMesh | None = None,
    ring_size: int | None = None,
    simulate: bool = False,
    layout: str = "sharded",
    order: Order = "contiguous",
    shard_lengths: Sequence[int] | None = None,
    buffer_shards: int = 2,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
    deterministic: bool = False,
    return_lse: bool = False,
) -> Any:
    """Dilated attention of `(b, n, h, d)` tensors whose rows are held by a ring of R ranks.

    For every R and every split, out, lse and gradients equal `dilated_attention` of the whole
    sequence up to the order of summation. From SDPA's layout use `.transpose(1, 2)`.

    | layout | each rank passes | each rank gets | gradients |
    |---|---|---|---|
    | `sharded` | its rows of q, k, v | its rows of out | of the sum of the ranks' losses |
    | `replicated` | all of q; all of k, v or its rows | all of out | dout equal on every rank |

    With `sharded` every rank that calls forward must call backward, too.

    Args:
        query: the rank's rows (b, n_rank, H, d), or with `replicated` all of them (b, n, H, d).
        key: the rank's rows (b, n_rank, H_kv, d); with `replicated` all rows or the rank's.
        value: like key.
        pattern: branches and offset rule; segments are cut in the global sequence.
        group: a ProcessGroup or a 1-d DeviceMesh; only this makes a real ring.
        ring_size: with a group, must equal its size; without one, that many ranks are simulated
            in this process: full tensors in, full tensors out, by the same code.
        simulate: simulate although torch.distributed is initialised.
        layout: `sharded` or `replicated`.
        order: `contiguous`, `zigzag`, or an int64 index map (see `positions`).
        shard_lengths: rows per rank, as even as possible where None; zero is legal.
        buffer_shards: receive buffers hold at most this many times the shard's rows (>= 2); what
            does not fit comes in pieces.
        is_causal: as in `dilated_attention`, as are all that follow.
        scale: softmax scale.
        key_mask: mask of the keys passed.
        cu_seqlens: global bounds, equal on every rank.
        dropout_p: probability of dropping an entry of the softmax.
        seed: where None, the group's first rank draws it.
        backend: `auto` or a name.
        deterministic: `sharded`, contiguous: out and lse bitwise equal for every ring and split,
            gradients bitwise equal from run to run; elsewhere bitwise equal from run to run.
        return_lse: return (out, lse).

    Returns:
        out in the layout's shape and query's dtype; with `return_lse` also lse.

    Raises:
        ValueError: wrong shape or value; no group in a process of several ranks.
        TypeError: wrong dtype or kind.
        RankDisagreementError: (a ValueError) ranks made different calls; on every rank.
        PeerError: (a RuntimeError) a rank raised, died or is late; within the group's timeout.
    """
    options = CallOptions(
        is_causal, scale, key_mask, cu_seqlens, dropout_p, seed, backend, deterministic, return_lse
    )
    comm = communicator(group, ring_size, simulate=simulate)
    query, key, value = autocast(query, key, value)
    ring = RingOptions(layout, order_map(order), shard_lengths, buffer_shards)
    if comm is not None and comm.size > 1:
        return _over_processes(query, key, value, pattern, comm, ring, options)
    check_local(query, key, value, pattern, options, ring)
    validation.check_same_length(query, key)
    size = 1 if comm is not None or ring_size is None else ring_size
    rows = make_layout(query.shape[1], size, ring.order, shard_lengths)
    if size == 1 and rows.contiguous:
        return run_local(query, key, value, pattern, options, ring_bits=deterministic)
    return _simulated(query, key, value, pattern, rows, ring, options)


_UNCOMPILED = (
    "a ring of several ranks exchanges rows from Python: torch.compile leaves it out of its "
    "graphs, and cannot with fullgraph=True"
)


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _over_processes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    comm: ProcessGroupCommunicator,
    ring: RingOptions,
    options: CallOptions,
) -> Any:
    from .distributed import real_call

    call = real_call(query, key, value, pattern, comm, ring, options)
    return apply(query, key, value, call, return_lse=options.return_lse)


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _simulated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    rows: Layout,
    ring: RingOptions,
    options: CallOptions,
) -> Any:
    drawn = seed_tensor(options.seed, query) if options.dropout_p > 0 else None
    call = build(query, key, pattern, options, rows, drawn, ring)
    return apply(query, key, value, call, return_lse=options.return_lse)
