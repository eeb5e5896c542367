"""The backend: whole sequences through the Hopper kernels, and what is kept from call to call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ...errors import BackendError
from ...schedule import Problem
from ...schedule.streams import stream_table
from ..options import KernelOptions, Result
from ..triton.prepare import prepare
from . import MOST_VIEWS, failures
from .blocks import HALF, Blocks, backward_blocks, forward_blocks
from .dkey_dvalue import dkey_dvalue_kernel
from .dquery import dquery_kernel
from .forward import forward_kernel
from .table import DeviceTable, descriptors, device_table, moved, readable


def executed_pairs(problem: Problem) -> int:
    """Pairs that the forward computes for one batch entry, in whole blocks, shared ones once."""
    return stream_table(problem, HALF, forward_blocks(128).block).executed


@dataclass(frozen=True, slots=True)
class _Call:
    """All that a call's launches depend on but the tensors' addresses: the key of what is kept."""

    problem: Problem
    scale: float
    wide: bool
    batch: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    strides: tuple[tuple[int, ...], ...]


def _call(options: KernelOptions, wide: bool, *tensors: Tensor) -> _Call:
    query = tensors[0]
    strides = tuple([tensor.stride() for tensor in tensors])
    b, _, _, d = query.shape
    return _Call(options.problem, options.scale, wide, b, d, query.dtype, query.device, strides)


class _Launcher:
    """A kernel with all its numbers, launched without Triton's binding of arguments.

    Args:
        kernel: of this folder; its arguments are tensors, table, strides, numbers,
            views of the two streamed tensors, compile-time constants.
        call: what it is for.
        table: the tiles.
        blocks: sizes.
        strides: of what the kernel reads by rows.
        flags: compile-time constants that not all kernels share.
    """

    def __init__(
        self,
        kernel: Any,
        call: _Call,
        table: DeviceTable,
        blocks: Blocks,
        strides: tuple[int, ...],
        flags: tuple[bool, ...],
    ) -> None:
        problem = call.problem
        self._kernel, self._grid = kernel, (table.programs, call.batch, 1)
        self._table, self._blocks = table, blocks
        self._numbers = (
            *(table.array, *strides, problem.n, problem.num_heads),
            problem.num_heads // problem.num_kv_heads,
            call.scale * math.log2(math.e),
        )
        self._unused = (None,) * (MOST_VIEWS - len(table.views))
        self._constants = (
            *(len(table.views), blocks.block, HALF, blocks.columns, call.head_dim, blocks.stages),
            *flags,
        )
        self._views: tuple[tuple[TensorDescriptor, ...], ...] | None = None
        self._compiled: Any = None

    def __call__(self, streamed: tuple[Tensor, Tensor], *tensors: Tensor) -> None:
        """Launch on the current device and stream."""
        if not self._table.programs:
            return
        if self._views is None:
            self._views = tuple(
                descriptors(x, self._table.views, self._blocks.block, self._blocks.columns)
                for x in streamed
            )
        views = [
            view
            for tensor, some in zip(streamed, self._views, strict=True)
            for view in (*[moved(x, tensor) for x in some], *self._unused)
        ]
        arguments = (*tensors, *self._numbers, *views, *self._constants)
        if self._compiled is None:
            self._compiled = self._compile(arguments)
        else:
            self._compiled[self._grid](*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> Any:
        """Compile and launch."""
        try:
            return self._kernel[self._grid](*arguments, num_warps=4)
        except triton.CompilationError as error:
            failures.append(f"its kernels did not compile here: {error}")
            message = "backend 'gluon' did not compile here; backend='triton' serves this call"
            raise BackendError(message) from error


@lru_cache(maxsize=64)
def _forward_launcher(call: _Call) -> tuple[_Launcher, bool]:
    """The kernel, and whether it writes every row."""
    blocks = forward_blocks(call.head_dim)
    table = device_table(call.problem, blocks.block, call.device)
    flags = (call.problem.is_causal,)
    strides = call.strides[0][:3]
    return _Launcher(forward_kernel, call, table, blocks, strides, flags), table.covered


@lru_cache(maxsize=64)
def _backward_launchers(call: _Call) -> tuple[_Launcher, _Launcher, bool, bool]:
    """Of dq, and of dk and dv, and whether they write every row."""
    blocks, problem = backward_blocks(call.head_dim), call.problem
    table = device_table(problem, blocks.block, call.device)
    key_table = device_table(problem, blocks.block, call.device, keys=True)
    query, key, value, dout = (some[:3] for some in call.strides)
    flags = (problem.is_causal,)
    return (
        _Launcher(dquery_kernel, call, table, blocks, (*query, *dout), flags),
        _Launcher(
            dkey_dvalue_kernel, call, key_table, blocks, (*key, *value), (problem.is_causal,)
        ),
        table.covered,
        key_table.covered,
    )


def _result(tensor: Tensor, shape: tuple[int, ...], covered: bool, wide: bool) -> Tensor:
    """Memory for a result, in float32 if wide; rows that no tile covers stay 0."""
    dtype = torch.float32 if wide else tensor.dtype
    make = torch.empty if covered else torch.zeros
    return make(shape, dtype=dtype, device=tensor.device)


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
        query: (b, n, H, d), float16 or bfloat16, any strides; copied where TMA cannot read it.
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: None; masks are not served.
        options: problem and scale.
        wide: out in float32.
    """
    assert key_mask is None
    query, key, value = readable(query), readable(key), readable(value)
    lse = query.new_empty(query.shape[:3], dtype=torch.float32)
    if not query.numel():
        return Result(torch.empty_like(query), lse)
    with torch.cuda.device_of(query):
        launch, covered = _forward_launcher(_call(options, wide, query, key, value))
        out = _result(query, query.shape, covered, wide)
        if not covered:
            lse.fill_(-torch.inf)
        launch((key, value), query, out, lse)
    return Result(out, lse)


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
    """(dq, dk, dv) of a whole sequence in the inputs' dtype, three launches; bits repeat.

    Args:
        query: (b, n, H, d).
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: None; masks are not served.
        dout: (b, n, H, d) in query's dtype.
        dlse: (b, n, H) float32, or None.
        result: of the forward, or of one over more keys.
        options: problem and scale.
        wide: gradients in float32.
    """
    assert key_mask is None
    query, key, value, dout = readable(query), readable(key), readable(value), readable(dout)
    if not query.numel():
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    with torch.cuda.device_of(query):
        call = _call(options, wide, query, key, value, dout)
        launch_dquery, launch_dkey, covered, keys_covered = _backward_launchers(call)
        lse, delta = prepare(dout, dlse, result.out, result.lse)
        dquery = _result(query, query.shape, covered, wide)
        dkey, dvalue = (_result(key, key.shape, keys_covered, wide) for _ in range(2))
        launch_dquery((key, value), query, dout, lse, delta, dquery)
        launch_dkey((query, dout), key, value, lse, delta, dkey, dvalue)
    return dquery, dkey, dvalue
