"""What a call will do, in words and numbers, before it is made."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import cost
from ..kernels.select import Request, backend_names, passed_over, select
from ..layout import Layout, make_layout
from ..pattern import DilationPattern
from ..schedule import Problem
from ..schedule.gathering import steps_together
from . import validation
from .balance import balance_line
from .call import RingOptions, ring_request
from .group import Order, order_map


def explain(
    pattern: DilationPattern,
    n: int,
    *,
    num_heads: int,
    head_dim: int,
    num_kv_heads: int | None = None,
    batch_size: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    is_causal: bool = False,
    cu_seqlens: Sequence[int] | None = None,
    ring_size: int = 1,
    layout: str = "sharded",
    order: Order = "contiguous",
    shard_lengths: Sequence[int] | None = None,
    buffer_shards: int = 2,
    backend: str = "auto",
    deterministic: bool = False,
    links: cost.Links | None = None,
) -> str:
    """Which backend and exchange a call takes, its FLOPs, bytes and memory, and why.

    The numbers come from the schedule that the call runs: FLOPs are 4 b d pairs forward and 2.5
    times that backward; bytes are those of the busiest rank, key masks apart.

    Args:
        pattern: branches and offset rule.
        n: global sequence length.
        num_heads: query heads H.
        head_dim: d.
        num_kv_heads: key/value heads, H where None.
        batch_size: b.
        dtype: of query, key and value.
        device: where they live.
        is_causal: as in the call.
        cu_seqlens: as in the call.
        ring_size: number of ranks R.
        layout: `sharded` or `replicated`.
        order: as in the call.
        shard_lengths: as in the call.
        buffer_shards: as in the call.
        backend: `auto` or a name.
        deterministic: as in the call.
        links: measured on the ring's own group (`functional.measured_links`); where None, those of
            two H100.

    Raises:
        ValueError: values that the call would refuse.
        TypeError: kinds that the call would refuse.
    """
    validation.check_pattern(pattern, num_heads)
    ring = RingOptions(layout, order_map(order), shard_lengths, buffer_shards)
    ring.check()
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    if kv_heads < 1 or num_heads % kv_heads:
        raise ValueError(
            f"num_heads must be a multiple of num_kv_heads, got {num_heads}, {kv_heads}"
        )
    rows = make_layout(n, ring_size, ring.order, shard_lengths)
    bounds = validation.check_cu_seqlens(cu_seqlens, n, batch_size)
    problem = Problem(pattern, n, num_heads, kv_heads, is_causal, bounds)
    place = torch.device(device)
    request = ring_request(problem, rows, ring, dtype, place, head_dim, deterministic=deterministic)
    chosen = select(backend, request)
    forward = cost.attention_flops(problem, batch_size, head_dim)
    backward = cost.attention_flops(problem, batch_size, head_dim, backward=True)
    branches = ", ".join(f"({b.segment_length}, {b.dilation_rate})" for b in pattern.branches)
    dense = 4 * batch_size * head_dim * num_heads * n * n
    full = "non-causal dense attention's" if is_causal else "dense attention's"
    share = f" ({forward / dense:.2%} of {full})" if n else ""
    kind = str(dtype).removeprefix("torch.")
    lines = [
        f"pattern    {pattern.rule}: (w, r) = {branches}",
        f"call       n = {n}, b = {batch_size}, H = {num_heads}, H_kv = {kv_heads}, d = {head_dim}",
        f"           {kind} on {place}{', causal' if is_causal else ''}",
        f"backend    {chosen.name}: {_why(backend, request)}",
        f"FLOPs      forward {forward:,}, backward {backward:,}{share}",
        *_ring_lines(
            problem,
            rows,
            ring,
            batch_size,
            head_dim,
            dtype,
            deterministic=deterministic,
            alone=chosen.whole is not None,
            transports=_transport_lines(
                problem, rows, ring, batch_size, head_dim, dtype, place, links, deterministic
            ),
        ),
    ]
    return "\n".join(lines)


def _why(asked: str, request: Request) -> str:
    if asked != "auto":
        return "named in the call"
    why_not = "; ".join(
        f"not {name}: {reason}"
        for name in backend_names()
        if (reason := passed_over(name, request)) is not None
    )
    return "the first that serves this call" + (f" ({why_not})" if why_not else "")


def _transport_lines(
    problem: Problem,
    layout: Layout,
    ring: RingOptions,
    batch: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    links: cost.Links | None,
    deterministic: bool,
) -> list[str]:
    """Which way each kind of row takes, how long that is predicted to take, and the other way."""
    if device.type != "cuda":
        return ["transport  p2p: sends and receives over Gloo, which has nothing else"]
    known = cost.BUILT_IN if links is None else links
    found = cost.exchanges(
        problem,
        layout,
        replicated=ring.replicated,
        batch=batch,
        head_dim=head_dim,
        itemsize=dtype.itemsize,
        buffer_shards=ring.buffer_shards,
        deterministic=deterministic,
    )
    lines = []
    for one in found:
        times = [f"p2p {1e6 * known.p2p.seconds(one.nbytes, one.messages):,.1f} us"]
        if known.symmetric is not None:
            seconds = known.symmetric.seconds(one.nbytes, one.messages)
            times.append(f"symmetric {1e6 * seconds:,.1f} us")
        lines.append(
            f"transport  {one.label}: {cost.fastest(known, one)}; at most {one.messages} messages "
            f"of {one.nbytes:,} bytes in all at once: {', '.join(times)}"
        )
    if known.symmetric is None:
        lines.append(f"           no symmetric memory: {known.refusal}")
    lines.append(f"           (latency and bandwidth: {known.source})")
    return lines


def _ring_lines(
    problem: Problem,
    layout: Layout,
    ring: RingOptions,
    batch: int,
    head_dim: int,
    dtype: torch.dtype,
    *,
    deterministic: bool,
    alone: bool,
    transports: list[str],
) -> list[str]:
    size, itemsize = layout.ring_size, dtype.itemsize
    if size == 1:
        return ["ring       R = 1: nothing travels"]
    traffic = [
        cost.rank_traffic(
            problem,
            layout,
            rank,
            replicated=ring.replicated,
            batch=batch,
            head_dim=head_dim,
            itemsize=itemsize,
        )
        for rank in range(size)
    ]
    own = "as a sequence of their own" if alone else "run by run, as the other ranks' rows"
    exchange = "rows that the receiver's queries see, one rank's at a time, the next under way"
    together = steps_together(problem, layout, ring.buffer_shards)
    if together > 1:
        exchange = (
            f"rows that the receiver's queries see, of {together} ranks in one batch: a sparse "
            "all-gather"
        )
    if ring.replicated:
        exchange = "float32 partial results to the owner of the queries, finished rows to all"
    elif deterministic and layout.contiguous:
        exchange = "rows from rank 0, 1, … in turn, in tiles of fixed global places"
    lines = [
        f"ring       R = {size}, {ring.layout}, {layout.order}, rows per rank "
        f"{min(layout.lengths)}..{max(layout.lengths)}",
        f"own rows   {own}",
        f"exchange   {exchange}",
        *transports,
        f"bytes      busiest rank sends {max(t.forward for t in traffic):,} forward, "
        f"{max(t.backward for t in traffic):,} backward",
    ]
    if not ring.replicated:
        held = max(
            cost.rank_memory(
                problem,
                layout,
                rank,
                batch=batch,
                head_dim=head_dim,
                itemsize=itemsize,
                buffer_shards=ring.buffer_shards,
            )
            for rank in range(size)
        )
        lines.append(f"memory     at most {held:,} bytes on a rank, tiles apart")
        lines.append(balance_line(problem, layout))
    return lines
