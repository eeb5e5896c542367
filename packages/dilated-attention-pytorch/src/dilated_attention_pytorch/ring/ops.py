"""The operator on one device as `torch.library` ops: opaque to torch.compile, with autograd.

`dilated_attention::attention` and `::attention_backward` take tensors, two floats, and one string
that says all the rest (`describe`), so that a compiled graph holds one node for each direction. A
ring (R > 1) is `ring.autograd.RingAttention`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..kernels import gluon
from ..kernels.options import KernelOptions, Result
from ..kernels.select import Request, select
from ..layout import Layout
from ..pattern import Branch, DilationPattern
from ..schedule import Problem
from .autograd import RingCall, compute_backward, compute_forward
from .backward import Gradients

# Modes that see the operators inside these ops, which a mode around an op does not.
observers: list[TorchDispatchMode] = []


def describe(
    pattern: DilationPattern,
    num_heads: int,
    *,
    is_causal: bool,
    cu_seqlens: tuple[int, ...] | None,
    backend: str,
    deterministic: bool,
    ring_bits: bool,
) -> str:
    """A call's options as the string that the ops take; torch.compile can trace it.

    Args:
        pattern: branches and offset rule.
        num_heads: query heads.
        is_causal: as in the call.
        cu_seqlens: as in the call.
        backend: as in the call.
        deterministic: as in the call.
        ring_bits: the bits have to be those of a deterministic ring of any size.
    """
    branches = tuple((b.segment_length, b.dilation_rate) for b in pattern.branches)
    switches = (pattern.phantom_keys, pattern.detach_mix, pattern.shift_rows)
    offsets = pattern.offsets(num_heads)
    numbers = (is_causal, cu_seqlens, backend, deterministic, ring_bits)
    return repr((branches, switches, offsets, numbers))


describe_cached = lru_cache(maxsize=256)(describe)


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[DilationPattern, tuple[Any, ...]]:
    branches, switches, offsets, numbers = ast.literal_eval(text)
    if any(switches):
        # The switches need torchscale's rule, which gives the very offsets of the table.
        lengths, rates = zip(*branches, strict=True)
        names = ("phantom_keys", "detach_mix", "shift_rows")
        chosen = dict(zip(names, switches, strict=True))
        return DilationPattern.torchscale(lengths, rates, **chosen), numbers
    pattern = DilationPattern.from_branches([Branch(w, r) for w, r in branches], offsets)
    return pattern, numbers


@lru_cache(maxsize=256)
def _problem(n: int, num_heads: int, num_kv_heads: int, text: str) -> Problem:
    pattern, (is_causal, cu_seqlens, *_) = _parse(text)
    return Problem(pattern, n, num_heads, num_kv_heads, is_causal, cu_seqlens)


@lru_cache(maxsize=256)
def _prepared(
    shape: tuple[int, ...],
    num_kv_heads: int,
    dtype: torch.dtype,
    device: torch.device,
    masked: bool,
    scale: float,
    dropout_p: float,
    text: str,
    failed: int,
) -> RingCall:
    """A call but for its mask and seed; `failed` kernels have refused to run by now."""
    del failed
    n, num_heads, head_dim = shape
    problem = _problem(n, num_heads, num_kv_heads, text)
    _, (_, _, backend, deterministic, ring_bits) = _parse(text)
    request = Request(
        problem,
        dtype,
        device,
        head_dim,
        ring_bits=ring_bits,
        key_mask=masked,
        dropout=dropout_p > 0,
        deterministic=deterministic,
    )
    chosen = select(backend, request)
    return RingCall(
        KernelOptions(problem, scale, chosen.part, dropout_p),
        Layout((n,)),
        deterministic=deterministic,
        whole=chosen.whole,
    )


def _call(
    query: Tensor,
    key: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    text: str,
) -> RingCall:
    _, *shape = query.shape
    masked = key_mask is not None
    call = _prepared(
        tuple(shape), key.shape[2], query.dtype, query.device, masked, scale, dropout_p, text,
        len(gluon.failures),
    )  # fmt: skip
    if key_mask is None and seed is None:
        return call
    return replace(call, key_mask=key_mask, options=replace(call.options, seed=seed))


def _observed(compute: Callable[..., Any], *arguments: Any) -> Any:
    if not observers:
        return compute(*arguments)
    with ExitStack() as stack:
        for mode in observers:
            stack.enter_context(mode)
        return compute(*arguments)


@torch.library.custom_op("dilated_attention::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    text: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out, lse, lane_out, lane_lse); the last two are empty but in torchscale's modes."""
    call = _call(query, key, key_mask, seed, scale, dropout_p, text)
    result: Result = _observed(compute_forward, call, query, key, value)
    if result.lane_out is None or result.lane_lse is None:
        return result.out, result.lse, query.new_empty(0), result.lse.new_empty(0)
    return result.out, result.lse, result.lane_out, result.lane_lse


@attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout_p: float,
    text: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pattern, _ = _parse(text)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    out = query.new_empty(query.shape)
    lse = query.new_empty(query.shape[:3], dtype=wide)
    if pattern.exact:
        return out, lse, query.new_empty(0), lse.new_empty(0)
    lanes = len(pattern.branches)
    return out, lse, query.new_empty((lanes, *query.shape)), lse.new_empty((lanes, *lse.shape))


@torch.library.custom_op("dilated_attention::attention_backward", mutates_args=())
def attention_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    lse: Tensor,
    lane_out: Tensor,
    lane_lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    scale: float,
    dropout_p: float,
    text: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv), contiguous."""
    call = _call(query, key, key_mask, seed, scale, dropout_p, text)
    lanes = (lane_out, lane_lse) if call.options.per_branch else (None, None)
    result = Result(out, lse, *lanes)
    found: Gradients = _observed(compute_backward, call, query, key, value, result, dout, dlse)
    return found


@attention_backward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | str | None
) -> tuple[Tensor, Tensor, Tensor]:
    dquery, dkey, dvalue = (x.new_empty(x.shape) for x in (query, key, value))
    return dquery, dkey, dvalue


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, scale, dropout_p, text = inputs
    ctx.numbers = (scale, dropout_p, text)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _backward(
    ctx: Any, dout: Tensor | None, dlse: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(saved[5])
    given = (*saved, dout, dlse, *ctx.numbers)
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling()
    gradients = attention_backward(*given) if recorded else unrecorded(attention_backward, *given)
    return (*gradients, *(None,) * 5)


def _second_derivative(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    raise RuntimeError(
        "dilated attention is once_differentiable: there is no second derivative; "
        "take it without create_graph=True"
    )


attention.register_autograd(_backward, setup_context=_setup_context)
attention_backward.register_autograd(_second_derivative)


def unrecorded(op: Callable[..., Any], *inputs: Any) -> Any:
    """An op where autograd is off, without the wrapping of `register_autograd`."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(*inputs)


class EagerAttention(torch.autograd.Function):
    """`attention` with the same autograd, without the wrapping of `register_autograd`.

    A traced call needs that wrapping; in any other it is a fourth of the time before the kernels.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        """The op; autograd is off here, so that it does not record itself."""
        output: tuple[Tensor, ...] = unrecorded(attention, *inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)
