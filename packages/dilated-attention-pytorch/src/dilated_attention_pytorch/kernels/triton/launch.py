"""The backend: whole sequences through the kernels, and what is kept from call to call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from ...schedule import Problem
from ...schedule.tables import tile_table
from ..options import KernelOptions, Result
from .backward import dkey_dvalue_kernel, dquery_kernel
from .blocks import Blocks, dkey_blocks, dquery_blocks, forward_blocks, lanes_forward_blocks
from .forward import forward_kernel
from .lanes import lanes_dkey_dvalue_kernel, lanes_dquery_kernel, lanes_forward_kernel
from .launcher import Launcher, dropout_numbers, rows_last
from .prepare import prepare

Strides = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """All that a call's launches depend on but the tensors' addresses: the key of what is kept.

    `strides` are those of query, key and value, and of dout in backward.
    """

    problem: Problem
    scale: float
    dropout_p: float
    masked: bool
    wide: bool
    batch: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    strides: tuple[Strides, ...]

    @property
    def lanes(self) -> bool:
        """Whether every branch keeps a result of its own."""
        return not self.problem.pattern.exact


@lru_cache(maxsize=64)
def _tables(
    problem: Problem, own: int, other: int, device: torch.device, *, keys: bool, outputs: bool
) -> tuple[tuple[Tensor, ...], int, bool]:
    """The kernels' tables on the device, number of programs, whether a tile straddles segments."""
    table = tile_table(problem, own, other, keys=keys, outputs=outputs)
    branches = [
        (
            problem.padded_segment(i) if problem.shifted(i) else problem.segment_length(i),
            problem.pattern.branches[i].dilation_rate,
            problem.segment_length(i),
        )
        for i in range(problem.num_branches)
    ]
    arrays = [table.programs, table.tiles, table.entries]
    if table.lanes is not None:
        arrays.append(table.lanes)
    found = [torch.from_numpy(x).to(device) for x in arrays]
    found.append(torch.tensor(branches, dtype=torch.int32, device=device))
    return tuple(found), len(table.programs), table.straddles


def _launcher(
    kernel: Any,
    call: _Call,
    blocks: Blocks,
    numbers: tuple[float, ...],
    flags: tuple[bool, ...],
    *,
    keys: bool = False,
    outputs: bool = False,
) -> Launcher:
    """A kernel over its tiles; `numbers` precede the strides, `flags` follow SEGMENTS."""
    problem = call.problem
    outputs = outputs and any(problem.shifted(i) for i in range(problem.num_branches))
    tables, programs, straddles = _tables(
        problem, blocks.own, blocks.other, call.device, keys=keys, outputs=outputs
    )
    return Launcher(
        kernel,
        (programs, call.batch, 1),
        tables,
        (
            *numbers,
            *(stride for strides in call.strides for stride in strides[:3]),
            problem.n,
            problem.num_heads,
            problem.num_heads // problem.num_kv_heads,
            problem.num_branches,
            problem.is_causal,
            straddles,
            *flags,
            call.head_dim,
            max(16, triton.next_power_of_2(call.head_dim)),
            blocks.own,
            blocks.other,
            "ieee",
        ),
        warps=blocks.warps,
        stages=blocks.stages,
    )


def _numbers(call: _Call) -> tuple[float, ...]:
    """Dropout's threshold and factor where the kernels know it, then the scale in base 2."""
    log2_scale = call.scale * math.log2(math.e)
    return (log2_scale,) if call.lanes else (*dropout_numbers(call.dropout_p), log2_scale)


@lru_cache(maxsize=64)
def _forward_launcher(call: _Call) -> Launcher:
    if call.lanes:
        blocks = lanes_forward_blocks(call.head_dim, call.dtype)
        flags: tuple[bool, ...] = (call.problem.pattern.phantom_keys,)
        return _launcher(lanes_forward_kernel, call, blocks, _numbers(call), flags, outputs=True)
    blocks = forward_blocks(call.head_dim, call.dtype)
    flags = (call.masked, call.dropout_p > 0)
    return _launcher(forward_kernel, call, blocks, _numbers(call), flags)


@lru_cache(maxsize=64)
def _backward_launchers(call: _Call) -> tuple[Launcher, Launcher]:
    """Of dq, and of dk and dv."""
    numbers = (*_numbers(call), call.scale)
    flags = () if call.lanes else (call.masked, call.dropout_p > 0)
    return (
        _launcher(
            lanes_dquery_kernel if call.lanes else dquery_kernel,
            call,
            dquery_blocks(call.head_dim, call.dtype),
            numbers,
            flags,
        ),
        _launcher(
            lanes_dkey_dvalue_kernel if call.lanes else dkey_dvalue_kernel,
            call,
            dkey_blocks(call.head_dim, call.dtype),
            numbers,
            flags,
            keys=True,
        ),
    )


def _call(options: KernelOptions, masked: bool, wide: bool, *tensors: Tensor) -> _Call:
    query = tensors[0]
    return _Call(
        options.problem,
        options.scale,
        options.dropout_p,
        masked,
        wide,
        query.shape[0],
        query.shape[3],
        query.dtype,
        query.device,
        tuple([tensor.stride() for tensor in tensors]),
    )


def _bytes(key_mask: Tensor | None, query: Tensor) -> Tensor:
    """The mask as bytes; without one the query, which the kernels do not read in its place."""
    return query if key_mask is None else key_mask.contiguous().view(torch.uint8)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    options: KernelOptions,
    *,
    wide: bool = False,
) -> Result:
    """out and lse of a whole sequence, one launch.

    Args:
        query: (b, n, H, d), any strides but a contiguous head dimension.
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: (b, n) bool, True = attend, or None.
        options: problem, scale, dropout.
        wide: out in float32.
    """
    query, key, value = rows_last(query), rows_last(key), rows_last(value)
    dtype = torch.float32 if wide else query.dtype
    out = torch.empty(query.shape, dtype=dtype, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
    result = Result(out, lse)
    if options.per_branch:
        result = Result(out, lse, *(x.new_empty((options.lanes, *x.shape)) for x in (out, lse)))
    if not query.shape[1]:
        return result
    call = _call(options, key_mask is not None, wide, query, key, value)
    with torch.cuda.device_of(query):
        launch = _forward_launcher(call)
        if result.lane_out is not None and result.lane_lse is not None:
            launch(query, key, value, out, lse, result.lane_out, result.lane_lse)
        else:
            seed = query if options.seed is None else options.seed
            launch(query, key, value, _bytes(key_mask, query), out, lse, seed)
    return result


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    dout: Tensor,
    dlse: Tensor | None,
    result: Result,
    options: KernelOptions,
    *,
    wide: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of a whole sequence in the inputs' dtype, three launches.

    Args:
        query: (b, n, H, d), any strides but a contiguous head dimension.
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: (b, n) bool or None.
        dout: (b, n, H, d) in query's dtype.
        dlse: (b, n, H) float32, or None.
        result: of the forward, or of one over more keys.
        options: problem, scale, dropout.
        wide: gradients in float32.
    """
    query, key, value, dout = (rows_last(x) for x in (query, key, value, dout))
    dtype = torch.float32 if wide else query.dtype
    dquery, dkey, dvalue = (
        torch.empty(x.shape, dtype=dtype, device=x.device) for x in (query, key, value)
    )
    if not query.shape[1]:
        return dquery, dkey, dvalue
    call = _call(options, key_mask is not None, wide, query, key, value, dout)
    with torch.cuda.device_of(query):
        launch_dquery, launch_dkey = _backward_launchers(call)
        if result.lane_out is not None and result.lane_lse is not None:
            detached = options.problem.pattern.detach_mix
            lse2, delta = prepare(
                dout,
                None if detached else dlse,
                result.lane_out if detached else result.out,
                result.lse,
                result.lane_lse,
            )
            launch_dquery(query, key, value, dout, lse2, delta, dquery)
            launch_dkey(query, key, value, dout, lse2, delta, dkey, dvalue)
        else:
            lse2, delta = prepare(dout, dlse, result.out, result.lse)
            given = (query, key, value, _bytes(key_mask, query), dout, lse2, delta)
            seed = query if options.seed is None else options.seed
            launch_dquery(*given, dquery, seed)
            launch_dkey(*given, dkey, dvalue, seed)
    return dquery, dkey, dvalue
