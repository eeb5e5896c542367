"""The backend's part for rings: some of the keys at a time, added to what is in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from ...schedule import Problem, RunList
from ...schedule.parts import Side, part_table
from ..carry import Carry
from ..options import KernelOptions, KeyGradient, KeyPart, QuerySide, Result
from .blocks import Blocks, dkey_blocks, dquery_blocks, forward_blocks
from .launcher import Launcher, dropout_numbers, rows_last
from .part import (
    finish_kernel,
    part_dkey_dvalue_kernel,
    part_dquery_kernel,
    part_forward_kernel,
)
from .prepare import prepare

_KERNELS = {
    "forward": part_forward_kernel,
    "dquery": part_dquery_kernel,
    "dkey": part_dkey_dvalue_kernel,
}


@dataclass(frozen=True, slots=True)
class _Call:
    """All that a launch depends on but the tensors' addresses: the key of what is kept.

    `strides` are those of query, and of dout in backward; `rows` are the rank's own; `parts` hold
    the 14 numbers of each part that the kernels read (`part._key_side`).
    """

    kernel: str
    problem: Problem
    runs: tuple[RunList, ...]
    blocks: Blocks
    scale: float
    dropout_p: float
    masked: bool
    lanes: bool
    batch: int
    rows: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    strides: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def _tables(
    problem: Problem,
    runs: tuple[RunList, ...],
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


def _alignment(call: _Call) -> int:
    """Elements in 16 bytes, if all places and strides of keys and values are such multiples."""
    elements = 16 // call.dtype.itemsize
    fits = all(number % elements == 0 for part in call.parts for number in part[:8])
    return elements if fits else 1


@lru_cache(maxsize=256)
def _launcher(call: _Call) -> Launcher | None:
    """None where the parts have no run."""
    forward = call.kernel == "forward"
    side: Side = "key" if call.kernel == "dkey" else "query"
    lanes = call.lanes and forward
    tables, programs = _tables(call.problem, call.runs, side, call.blocks, call.device, lanes=lanes)
    if not programs:
        return None
    numbers: tuple[Any, ...] = (
        *dropout_numbers(call.dropout_p),
        call.scale * math.log2(math.e),
        *(() if forward else (call.scale,)),
        *(stride for strides in call.strides for stride in strides[:3]),
        call.rows,
        call.problem.num_heads,
        call.problem.is_causal,
        call.masked,
        call.dropout_p > 0,
        *(() if forward else (call.lanes,)),
        call.head_dim,
        max(16, triton.next_power_of_2(call.head_dim)),
        call.blocks.own,
        call.blocks.other,
        "ieee",
        _alignment(call),
    )
    return Launcher(
        _KERNELS[call.kernel],
        (programs, call.batch, 1),
        (*tables, torch.tensor(call.parts, dtype=torch.int64, device=call.device)),
        numbers,
        warps=call.blocks.warps,
        stages=call.blocks.stages,
    )


def _behind(tensor: Tensor, first: Tensor) -> int:
    """Elements from the beginning of one tensor to that of another in the same memory."""
    return (tensor.data_ptr() - first.data_ptr()) // tensor.element_size()


def _numbers(
    parts: Sequence[KeyPart], gradients: Sequence[KeyGradient] = ()
) -> tuple[tuple[int, ...], ...]:
    """Where keys, values, masks and gradients of the parts lie, seen from the first part's."""
    found = []
    for i, part in enumerate(parts):
        places = [
            (_behind(x, first), *x.stride()[:3])
            for x, first in ((part.key, parts[0].key), (part.value, parts[0].value))
        ]
        mask = (0, 0)
        if part.key_mask is not None and parts[0].key_mask is not None:
            mask = _behind(part.key_mask, parts[0].key_mask), part.key_mask.stride(0)
        behind, batch = (0, 0), 0
        if gradients:
            dkey, dvalue = gradients[i]
            behind = _behind(dkey, gradients[0][0]), _behind(dvalue, gradients[0][1])
            batch = dkey.stride(0)
        found.append((*places[0], *places[1], *mask, *behind, part.key.shape[2], batch))
    return tuple(found)


def _readable(parts: Sequence[KeyPart]) -> list[KeyPart]:
    """The parts themselves, or copies where the kernels cannot read them.

    The head dimension of keys and values and the rows of masks have to be contiguous. Several parts
    come out of one message, packed.
    """
    found = []
    for part in parts:
        mask = part.key_mask
        if mask is not None and mask.stride(1) != 1:
            mask = mask.contiguous()
        found.append(KeyPart(rows_last(part.key), rows_last(part.value), mask))
    return found


def _launch(
    kernel: str,
    blocks: Blocks,
    runs: tuple[RunList, ...],
    options: KernelOptions,
    parts: Sequence[KeyPart],
    numbers: tuple[tuple[int, ...], ...],
    read: tuple[Tensor, ...],
    *tensors: Tensor,
) -> None:
    """Launch a kernel on all its tensors; `read` are those of query's side."""
    query, key = read[0], parts[0]
    mask = query if key.key_mask is None else key.key_mask.view(torch.uint8)
    seed = query if options.seed is None else options.seed
    call = _Call(
        kernel,
        options.problem,
        runs,
        blocks,
        options.scale,
        options.dropout_p,
        key.key_mask is not None,
        options.per_branch,
        query.shape[0],
        query.shape[1],
        query.shape[3],
        query.dtype,
        query.device,
        tuple(tensor.stride() for tensor in read),
        numbers,
    )
    with torch.cuda.device_of(query):
        launcher = _launcher(call)
        if launcher is not None:
            # Without a mask or a seed the kernels read none, and get the query in its place.
            launcher(query, key.key, key.value, mask, *tensors, seed)


def forward(
    query: Tensor,
    parts: Sequence[KeyPart],
    runs: tuple[RunList, ...],
    carry: Carry,
    options: KernelOptions,
) -> None:
    """Add the keys of the parts to the carry of every query row that sees them, one launch.

    Args:
        query: (b, n, H, d), the rank's rows, any strides but a contiguous head dimension.
        parts: keys and values.
        runs: which rows meet which, for each part.
        carry: updated in place.
        options: problem, scale, dropout.
    """
    some = [i for i, found in enumerate(runs) if len(found)]
    if not some:
        return
    runs = tuple(runs[i] for i in some)
    query, parts = rows_last(query), _readable([parts[i] for i in some])
    blocks = forward_blocks(query.shape[3], query.dtype)
    _launch(
        *("forward", blocks, runs, options, parts, _numbers(parts), (query,)),
        *(carry.maximum, carry.total, carry.weighted),
    )


def backward(
    side: QuerySide,
    parts: Sequence[KeyPart],
    runs: tuple[RunList, ...],
    gradients: Sequence[KeyGradient],
    options: KernelOptions,
) -> None:
    """Add the parts' share of the exact gradient to dquery, dk and dv, two launches.

    Args:
        side: query side; its dquery (float32, contiguous) is summed in place.
        parts: keys and values.
        runs: which rows meet which, for each part.
        gradients: (dk, dv) of each part, (b, rows, heads, d), float32, contiguous but for the
            batch, whose stride both share; summed in place.
        options: problem, scale, dropout.
    """
    some = [i for i, found in enumerate(runs) if len(found)]
    if not some:
        return
    runs, gradients = tuple(runs[i] for i in some), [gradients[i] for i in some]
    query, dout = rows_last(side.query), rows_last(side.dout)
    parts = _readable([parts[i] for i in some])
    lse2, delta = (x.transpose(2, 3).contiguous() for x in (side.lse, side.delta))
    lse2 = torch.where(lse2 == -torch.inf, torch.inf, lse2 * math.log2(math.e))
    assert side.dquery.is_contiguous()
    assert side.dquery.dtype == torch.float32
    for dkey, dvalue in gradients:
        assert dkey.stride() == dvalue.stride()
        for x in (dkey, dvalue):
            assert x[0].is_contiguous()
            assert x.dtype == torch.float32
    numbers, read, d = _numbers(parts, gradients), (query, dout), query.shape[3]
    dkey, dvalue = gradients[0]
    blocks = dquery_blocks(d, query.dtype)
    _launch(
        *("dquery", blocks, runs, options, parts, numbers, read),
        *(dout, lse2, delta, side.dquery),
    )
    blocks = dkey_blocks(d, query.dtype)
    _launch(
        *("dkey", blocks, runs, options, parts, numbers, read),
        *(dout, lse2, delta, dkey, dvalue),
    )


def finish(carry: Carry, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(out, lse) of a carry of one lane, which is used up: one launch, nothing of its size beside.

    Args:
        carry: (1, b, n, H) maximum and total, (1, b, n, H, d) weighted, contiguous.
        dtype: of out.
    """
    maximum, total, weighted = carry.maximum[0], carry.total[0], carry.weighted[0]
    assert weighted.is_contiguous()
    out = torch.empty(weighted.shape, dtype=dtype, device=weighted.device)
    rows, d = total.numel(), weighted.shape[-1]
    if rows:
        with torch.cuda.device_of(weighted):
            launch = _finisher(rows, d, dtype, weighted.device)
            launch(maximum, total, weighted, out)
    return out, maximum


@lru_cache(maxsize=64)
def _finisher(rows: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Launcher:
    """The kernel; kept by device and dtype."""
    del dtype, device
    block = max(16, triton.next_power_of_2(head_dim))
    own = 4096 // block
    numbers = (rows, head_dim, block, own)
    return Launcher(finish_kernel, (triton.cdiv(rows, own), 1, 1), (), numbers, warps=4, stages=1)


def delta(dout: Tensor, result: Result, *, detached: bool) -> Tensor:
    """<dout, out> of every row, (b, n, H) float32, one launch; (lanes, b, n, H) if detached.

    Args:
        dout: (b, n, H, d), any strides but a contiguous head dimension.
        result: of the forward.
        detached: of each lane's own out.
    """
    lanes = result.lane_lse if detached else None
    out = result.lane_out if detached and result.lane_out is not None else result.out
    if not dout.numel():
        return torch.zeros(out.shape[:-1], dtype=torch.float32, device=out.device)
    with torch.cuda.device_of(dout):
        _, found = prepare(rows_last(dout), None, out, result.lse, lanes)
    return found.transpose(-1, -2)
