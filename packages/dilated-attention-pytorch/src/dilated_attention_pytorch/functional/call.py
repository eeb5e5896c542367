"""From what a user passed to a `RingCall`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..kernels.options import KernelOptions
from ..kernels.select import Request, select
from ..layout import Layout
from ..pattern import DilationPattern, as_ints
from ..ring.autograd import RealRing, RingAttention, RingCall
from ..ring.ops import EagerAttention, attention, describe, describe_cached, unrecorded
from ..schedule import Problem, own_problems
from ..typing import IntArray
from . import validation


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options that both public functions take, as passed."""

    is_causal: bool
    scale: float | None
    key_mask: Tensor | None
    cu_seqlens: Tensor | Sequence[int] | None
    dropout_p: float
    seed: int | Tensor | None
    backend: str
    deterministic: bool
    return_lse: bool


@dataclass(frozen=True, slots=True)
class RingOptions:
    """Options of the ring function alone."""

    layout: str = "sharded"
    order: str | IntArray = "contiguous"
    shard_lengths: Sequence[int] | None = None
    buffer_shards: int = 2

    @property
    def replicated(self) -> bool:
        """Layout `replicated`."""
        return self.layout == "replicated"

    def check(self) -> None:
        """ValueError or TypeError for an unknown layout, bad lengths or a bad buffer size."""
        if self.layout not in ("sharded", "replicated"):
            raise ValueError(f"layout must be 'sharded' or 'replicated', got {self.layout!r}")
        if self.shard_lengths is not None:
            as_ints("shard_lengths", self.shard_lengths)
        if isinstance(self.buffer_shards, bool) or not isinstance(self.buffer_shards, int):
            raise TypeError(f"buffer_shards must be an int, got {self.buffer_shards!r}")
        if self.buffer_shards < 2:
            raise ValueError(
                "buffer_shards must be at least 2 (one piece arrives while one is used), got "
                f"{self.buffer_shards}"
            )


def autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast, float16, bfloat16 and float32 inputs become its dtype, as in SDPA."""
    if not isinstance(query, Tensor) or not torch.is_autocast_enabled(query.device.type):
        return query, key, value
    target = torch.get_autocast_dtype(query.device.type)

    def cast(tensor: Tensor) -> Tensor:
        eligible = isinstance(tensor, Tensor) and tensor.is_floating_point()
        return tensor.to(target) if eligible and tensor.dtype != torch.float64 else tensor

    return cast(query), cast(key), cast(value)


def check_transforms(*tensors: Tensor) -> None:
    """NotImplementedError under torch.func's transforms and for tensors with a forward gradient.

    Neither reaches into the ops: gradients would be refused in other words, or silently lost.
    """
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "dilated attention does not run under torch.func transforms (vmap, grad, vjp, jvp, "
            "jacrev, …): its forward and backward are opaque ops. Take gradients by backward() or "
            "torch.autograd.grad, and fold a dimension to map over into the batch: "
            "x.flatten(0, 1); torch.func.functional_call works"
        )
    # torch.compile has no forward mode, and cannot trace the question; elsewhere a level is open
    # where a tensor has a forward gradient.
    closed = getattr(forward_ad, "_current_level", 0) < 0
    if closed or torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            "dilated attention has no forward-mode derivative (torch.autograd.forward_ad); take "
            "gradients by backward() or torch.autograd.grad"
        )


def check_local(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    options: CallOptions,
    ring: RingOptions | None = None,
) -> None:
    """All checks that need only what this rank was passed."""
    validation.check_tensors(query, key, value)
    check_transforms(query, key, value)
    validation.check_pattern(pattern, query.shape[2])
    validation.check_key_mask(options.key_mask, key)
    validation.check_numbers(options.scale, options.dropout_p, query.shape[3])
    validation.check_seed(options.seed)
    for name in ("is_causal", "deterministic", "return_lse"):
        validation.check_flag(name, getattr(options, name))
    if not isinstance(options.backend, str):
        raise TypeError(f"backend must be a str, got {options.backend!r}")
    if ring is not None:
        ring.check()


def seed_tensor(seed: int | Tensor | None, like: Tensor) -> Tensor:
    """The seed as a 0-d int64 tensor beside the inputs; drawn from torch's generator where None."""
    if isinstance(seed, Tensor):
        return seed.to(like.device)
    if seed is None:
        return torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64).to(like.device)
    signed = seed - 2**64 if seed >= 2**63 else seed
    return torch.tensor(signed, dtype=torch.int64, device=like.device)


def _check_global(
    query: Tensor, pattern: DilationPattern, options: CallOptions, n: int
) -> tuple[float, tuple[int, ...] | None]:
    """(scale, document bounds), once the global length n is known."""
    bounds = validation.check_cu_seqlens(options.cu_seqlens, n, query.shape[0])
    validation.check_switches(pattern, options.key_mask, bounds, options.dropout_p)
    scale = 1 / math.sqrt(query.shape[3]) if options.scale is None else float(options.scale)
    return scale, bounds


def ring_request(
    problem: Problem,
    layout: Layout,
    ring: RingOptions,
    dtype: torch.dtype,
    device: torch.device,
    head_dim: int,
    *,
    key_mask: bool = False,
    dropout: bool = False,
    deterministic: bool = False,
) -> Request:
    """What a backend must serve over a layout's ranks; the same on every rank."""
    several = layout.ring_size > 1 or not layout.contiguous
    return Request(
        problem,
        dtype,
        device,
        head_dim,
        ring=several,
        own=() if ring.replicated else own_problems(problem, layout),
        ring_bits=several and deterministic and layout.contiguous and not ring.replicated,
        key_mask=key_mask,
        dropout=dropout,
        deterministic=deterministic,
    )


def build(
    query: Tensor,
    key: Tensor,
    pattern: DilationPattern,
    options: CallOptions,
    layout: Layout,
    seed: Tensor | None,
    ring: RingOptions,
    real: RealRing | None = None,
    *,
    full_keys: bool = False,
) -> RingCall:
    """A ring's call, once the global length is known; checks what needs it."""
    scale, bounds = _check_global(query, pattern, options, layout.n)
    problem = Problem(pattern, layout.n, query.shape[2], key.shape[2], options.is_causal, bounds)
    dropout = float(options.dropout_p)
    request = ring_request(
        problem,
        layout,
        ring,
        query.dtype,
        query.device,
        query.shape[3],
        key_mask=options.key_mask is not None,
        dropout=dropout > 0,
        deterministic=options.deterministic,
    )
    chosen = select(options.backend, request)
    drawn = seed if dropout > 0 else None
    kernel = KernelOptions(problem, scale, chosen.part, dropout, drawn, chosen.whole, chosen.tiles)
    return RingCall(
        kernel,
        layout,
        ring.replicated,
        options.key_mask,
        options.deterministic,
        ring.buffer_shards,
        full_keys,
        real,
    )


def apply(query: Tensor, key: Tensor, value: Tensor, call: RingCall, *, return_lse: bool) -> Any:
    """Run the call; (out, lse) or out alone."""
    out, lse = RingAttention.apply(query, key, value, call)  # type: ignore[no-untyped-call]
    return (out, lse) if return_lse else out


def run_local(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    options: CallOptions,
    *,
    ring_bits: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The call on one device, as one op; (out, lse) or out alone.

    Args:
        query: checked, as are the others.
        key: as query.
        value: as query.
        pattern: branches and offset rule.
        options: as passed.
        ring_bits: bits have to be those of a deterministic ring of any size, so the kernels have
            to be the ring's.

    Raises:
        ValueError: options that do not fit the tensors.
    """
    scale, bounds = _check_global(query, pattern, options, query.shape[1])
    seed, dropout_p = None, float(options.dropout_p)
    if dropout_p > 0:
        if options.seed is None and torch.compiler.is_compiling():
            raise ValueError("under torch.compile dropout needs a seed; pass seed=…, a 0-d tensor")
        seed = seed_tensor(options.seed, query)
    # torch.compile traces a call once, and warns of caches; without it every microsecond counts.
    compiling = torch.compiler.is_compiling()
    text = (describe if compiling else describe_cached)(
        pattern,
        query.shape[2],
        is_causal=options.is_causal,
        cu_seqlens=bounds,
        backend=options.backend,
        deterministic=options.deterministic,
        ring_bits=ring_bits,
    )
    out: Tensor
    lse: Tensor
    given = (query, key, value, options.key_mask, seed, scale, dropout_p, text)
    if compiling:
        out, lse, _, _ = attention(*given)
    elif torch.is_grad_enabled():
        out, lse, _, _ = EagerAttention.apply(*given)  # type: ignore[no-untyped-call]
    else:
        out, lse, _, _ = unrecorded(attention, *given)
    if not options.return_lse:
        return out
    return out, lse.detach() if pattern.detach_mix else lse
