"""The backend's part for rings: one part of the keys at a time, added to what is in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from ...schedule import Problem, RunList
from ...schedule.parts import Side, part_table
from ..carry import Carry
from ..options import KernelOptions, KeyPart, QuerySide
from .blocks import Blocks, dkey_blocks, dquery_blocks, forward_blocks
from .launcher import Launcher
from .part import part_dkey_dvalue_kernel, part_dquery_kernel, part_forward_kernel

_KERNELS = {
    "forward": part_forward_kernel,
    "dquery": part_dquery_kernel,
    "dkey": part_dkey_dvalue_kernel,
}


@dataclass(frozen=True, slots=True)
class _Call:
    """All that a launch depends on but the tensors' addresses: the key of what is kept.

    `strides` are those of query, key and value, and of dout in backward; `sizes` the numbers of
    own rows, of rows of the other side, and of query heads, then of the part's heads for dk.
    """

    kernel: str
    problem: Problem
    runs: RunList
    blocks: Blocks
    scale: float
    dropout_p: float
    masked: bool
    lanes: bool
    batch: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    strides: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


@lru_cache(maxsize=256)
def _tables(
    problem: Problem,
    runs: RunList,
    side: Side,
    blocks: Blocks,
    device: torch.device,
    *,
    lanes: bool,
) -> tuple[tuple[Tensor, ...], int]:
    """The kernels' tables on the device, and the number of programs."""
    table = part_table(problem, runs, side, blocks.own, blocks.other, lanes=lanes)
    arrays = (table.programs, table.tiles, table.entries)
    return tuple(torch.from_numpy(x).to(device) for x in arrays), len(table.programs)


@lru_cache(maxsize=256)
def _launcher(call: _Call) -> Launcher | None:
    """None where the part has no run."""
    forward = call.kernel == "forward"
    side: Side = "key" if call.kernel == "dkey" else "query"
    lanes = call.lanes and forward
    tables, programs = _tables(call.problem, call.runs, side, call.blocks, call.device, lanes=lanes)
    if not programs:
        return None
    p = call.dropout_p
    numbers: tuple[Any, ...] = (
        math.floor(p * 2**32),
        0.0 if p == 1 else 1 / (1 - p),
        call.scale * math.log2(math.e),
        *(() if forward else (call.scale,)),
        *(stride for strides in call.strides for stride in strides[:3]),
        *call.sizes,
        call.problem.is_causal,
        call.masked,
        p > 0,
        *(() if forward else (call.lanes,)),
        call.head_dim,
        max(16, triton.next_power_of_2(call.head_dim)),
        call.blocks.own,
        call.blocks.other,
        "ieee",
    )
    return Launcher(
        _KERNELS[call.kernel],
        (programs, call.batch, 1),
        tables,
        numbers,
        warps=call.blocks.warps,
        stages=call.blocks.stages,
    )


def _launch(
    kernel: str,
    blocks: Blocks,
    runs: RunList,
    options: KernelOptions,
    masked: bool,
    read: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    *tensors: Tensor,
) -> None:
    """Launch a kernel on all its tensors; `read` are those whose strides it takes."""
    query = read[0]
    call = _Call(
        kernel, options.problem, runs, blocks, options.scale, options.dropout_p, masked,
        options.per_branch, query.shape[0], query.shape[3], query.dtype, query.device,
        tuple(tensor.stride() for tensor in read), sizes,
    )  # fmt: skip
    with torch.cuda.device_of(query):
        launcher = _launcher(call)
        if launcher is not None:
            launcher(*tensors)


def _rows_last(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its head dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _bytes(key_mask: Tensor | None, query: Tensor) -> Tensor:
    """The mask as bytes; without one the query, which the kernels do not read in its place."""
    return query if key_mask is None else key_mask.contiguous().view(torch.uint8)


def forward(
    query: Tensor, part: KeyPart, runs: RunList, carry: Carry, options: KernelOptions
) -> None:
    """Add the keys of `part` to the carry of every query row that sees them, one launch.

    Args:
        query: (b, n, H, d), the rank's rows, any strides but a contiguous head dimension.
        part: keys and values.
        runs: which rows meet which.
        carry: updated in place.
        options: problem, scale, dropout.
    """
    query, key, value = _rows_last(query), _rows_last(part.key), _rows_last(part.value)
    seed = query if options.seed is None else options.seed
    _launch(
        "forward",
        forward_blocks(query.shape[3], query.dtype),
        runs,
        options,
        part.key_mask is not None,
        (query, key, value),
        (query.shape[1], key.shape[1], query.shape[2]),
        *(query, key, value, _bytes(part.key_mask, query)),
        *(carry.maximum, carry.total, carry.weighted, seed),
    )


def backward(
    side: QuerySide,
    part: KeyPart,
    runs: RunList,
    dkey: Tensor,
    dvalue: Tensor,
    options: KernelOptions,
) -> None:
    """Add the part's share of the exact gradient to dquery, dkey and dvalue, two launches.

    Args:
        side: query side; its dquery (float32, contiguous) is summed in place.
        part: keys and values.
        runs: which rows meet which.
        dkey: (b, rows, heads, d) of the part, float32, contiguous, summed in place.
        dvalue: likewise.
        options: problem, scale, dropout.
    """
    query, key, value, dout = (_rows_last(x) for x in (side.query, part.key, part.value, side.dout))
    n, heads, head_dim = query.shape[1:]
    lse2, delta = (x.transpose(2, 3).contiguous() for x in (side.lse, side.delta))
    lse2 = torch.where(lse2 == -torch.inf, torch.inf, lse2 * math.log2(math.e))
    seed = query if options.seed is None else options.seed
    masked = part.key_mask is not None
    read = (query, key, value, dout)
    given = (query, key, value, _bytes(part.key_mask, query), dout, lse2, delta)
    for x in (side.dquery, dkey, dvalue):
        assert x.is_contiguous()
        assert x.dtype == torch.float32
    _launch(
        *("dquery", dquery_blocks(head_dim, query.dtype), runs, options, masked, read),
        (n, key.shape[1], heads),
        *(*given, side.dquery, seed),
    )
    _launch(
        *("dkey", dkey_blocks(head_dim, query.dtype), runs, options, masked, read),
        (key.shape[1], n, heads, key.shape[2]),
        *(*given, dkey, dvalue, seed),
    )
