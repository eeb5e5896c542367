"""A call on a real ring: ranks agree on it first, then each builds it alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from .. import cost
from ..comm import transports
from ..comm.parcel import LABELS
from ..comm.process_group import ProcessGroupCommunicator
from ..layout import Layout, even_lengths, make_layout
from ..pattern import DilationPattern
from ..ring.agreement import BACKWARD, FORWARD, Agreement, agree, fingerprint, next_call
from ..ring.autograd import RealRing, RingCall
from ..typing import IntArray
from .call import CallOptions, RingOptions, build, check_local, seed_tensor


def real_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    comm: ProcessGroupCommunicator,
    ring: RingOptions,
    options: CallOptions,
) -> RingCall:
    """Validate, agree with the other ranks, and build the call.

    Raises:
        ValueError: this rank's arguments, or on every rank: the ranks' lengths do not fit.
        TypeError: likewise.
        RankDisagreementError: ranks passed different options; on every rank.
        PeerError: another rank's arguments were refused, or it did not answer.
    """
    number = next_call(comm.name)
    try:
        asked = transports.asked()
        check_local(query, key, value, pattern, options, ring)
        drawn = seed_tensor(options.seed, query) if options.dropout_p > 0 else None
        mine, passed = _fields(query, key, value, pattern, ring, options)
        # A rank that knows other links, or may not use what the others use, is told apart here.
        passed["transport"] = f"{asked}; {comm.known}"
        mine["transport"] = fingerprint(passed["transport"])
    except (TypeError, ValueError):
        agree(comm, {}, failed=True)
        raise
    mine |= {"operation": FORWARD, "call": number}
    mine["seed_drawn"] = 0 if drawn is None else int(drawn)
    agreed = agree(comm, mine, passed)
    layout = _layout(query, comm, ring, agreed)
    full_keys = _check_keys(agreed.of("key_rows"), ring, layout)
    seed = None
    if drawn is not None:
        seed = torch.tensor(agreed.of("seed_drawn")[0], dtype=torch.int64, device=query.device)
    real = RealRing(comm, comm.run, _backward_check(comm, number))
    call = build(query, key, pattern, options, layout, seed, ring, real, full_keys=full_keys)
    comm.prepare(query.device, asked)
    comm.choose(_transports(query, call, comm, asked))
    return call


def _transports(
    query: Tensor, call: RingCall, comm: ProcessGroupCommunicator, asked: str
) -> dict[str, str]:
    """The transport of each kind of message; every rank finds the same."""
    if asked == transports.SYMMETRIC:
        return dict.fromkeys(LABELS, transports.SYMMETRIC)
    if comm.links is None or asked == transports.P2P:
        return {}
    found = cost.exchanges(
        call.options.problem,
        call.layout,
        replicated=call.replicated,
        batch=query.shape[0],
        head_dim=query.shape[3],
        itemsize=query.element_size(),
        buffer_shards=call.buffer_shards,
        deterministic=call.deterministic,
    )
    chosen = {one.label: cost.fastest(comm.links, one) for one in found}
    # A mask travels with its rows.
    return chosen | ({"key_mask": chosen["key_value"]} if "key_value" in chosen else {})


def _fields(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    ring: RingOptions,
    options: CallOptions,
) -> tuple[dict[str, int], dict[str, str]]:
    """What the ranks compare, and what this rank passed where that is a digest."""
    bounds = options.cu_seqlens
    if isinstance(bounds, Tensor):
        bounds = bounds.tolist()
    lengths, seed = ring.shard_lengths, options.seed
    passed = {
        "dtype": str(query.dtype),
        "layout": ring.layout,
        "order": ring.order if isinstance(ring.order, str) else _map_name(ring.order),
        "shard_lengths": str(None if lengths is None else list(lengths)),
        "pattern": str(pattern),
        "scale": str(None if options.scale is None else float(options.scale)),
        "cu_seqlens": str(None if bounds is None else list(bounds)),
        "dropout_p": str(float(options.dropout_p)),
        "seed": str(None if seed is None else int(seed)),
        "backend": options.backend,
    }
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    fields = {
        "batch": query.shape[0],
        "num_heads": query.shape[2],
        "num_kv_heads": key.shape[2],
        "head_dim": query.shape[3],
        "buffer_shards": ring.buffer_shards,
        "is_causal": int(options.is_causal),
        "key_mask": int(options.key_mask is not None),
        "deterministic": int(options.deterministic),
        "requires_grad": int(differentiable),
        "rows": query.shape[1],
        "key_rows": key.shape[1],
    }
    return fields | {name: fingerprint(text) for name, text in passed.items()}, passed


def _map_name(index_map: IntArray) -> str:
    """An index map in a few words: it may have millions of rows, and every call names it."""
    integers = index_map.dtype.kind in "iu" or not index_map.size
    rows = index_map.astype("<i8") if integers else index_map
    digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    return f"an index map {rows.dtype.name} {rows.shape} with digest {digest}"


def _layout(
    query: Tensor, comm: ProcessGroupCommunicator, ring: RingOptions, agreed: Agreement
) -> Layout:
    """Who holds which rows; every rank finds the same, or raises the same."""
    rows = agreed.of("rows")
    if ring.replicated:
        if len(set(rows)) > 1:
            raise ValueError(f"with layout 'replicated' every rank passes all queries, got {rows}")
        return make_layout(query.shape[1], comm.size, ring.order, ring.shard_lengths)
    n = sum(rows)
    expected = (
        even_lengths(n, comm.size) if ring.shard_lengths is None else tuple(ring.shard_lengths)
    )
    if tuple(rows) != expected:
        raise ValueError(
            f"the ranks hold {list(rows)} rows, expected {list(expected)}"
            + (
                f" (as even as possible); pass shard_lengths={list(rows)} for this split"
                if ring.shard_lengths is None
                else " as shard_lengths says"
            )
        )
    return make_layout(n, comm.size, ring.order, rows)


def _check_keys(key_rows: tuple[int, ...], ring: RingOptions, layout: Layout) -> bool:
    """Whether all keys were passed (replicated only); raises on every rank where lengths differ."""
    if ring.replicated and all(rows == layout.n for rows in key_rows):
        return True
    if key_rows != layout.lengths:
        wanted = f"{list(layout.lengths)} (each rank its own)"
        if ring.replicated:
            wanted = f"{layout.n} on every rank or {wanted}"
        raise ValueError(f"key and value must have {wanted} rows, got {list(key_rows)}")
    return False


def _backward_check(comm: ProcessGroupCommunicator, number: int) -> Callable[[], None]:
    def check() -> None:
        agree(comm, {"operation": BACKWARD, "call": number})

    return check
