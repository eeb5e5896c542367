"""Launching the kernels on whole tensors: tables to the device, blocks by head dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from ...schedule import Problem
from ...schedule.tables import TileTable, tile_table
from ..options import KernelOptions
from .backward import dkey_dvalue_kernel, dquery_kernel
from .forward import forward_kernel


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows of a program's tile, rows taken from the other side at a time, and how to run it."""

    own: int
    other: int
    warps: int
    stages: int


def forward_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the forward kernel."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(128, 64, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


def dquery_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the dq kernel."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(64, 32, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


def dkey_blocks(head_dim: int, dtype: torch.dtype) -> Blocks:
    """Blocks of the dk, dv kernel."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2) if head_dim > 64 else Blocks(64, 32, 4, 2)
    if head_dim <= 64:
        return Blocks(128, 32, 4, 3)
    return Blocks(128, 64, 8, 3) if head_dim <= 128 else Blocks(64, 32, 8, 2)


@dataclass(frozen=True, eq=False, slots=True)
class _DeviceTable:
    programs: Tensor
    tiles: Tensor
    entries: Tensor
    branches: Tensor
    straddles: bool


@lru_cache(maxsize=64)
def _device_table(
    problem: Problem, own: int, other: int, device: torch.device, *, keys: bool
) -> _DeviceTable:
    table: TileTable = tile_table(problem, own, other, keys=keys)
    branches = torch.tensor(
        [(min(b.segment_length, problem.n), b.dilation_rate) for b in problem.pattern.branches],
        dtype=torch.int32,
    )
    programs, tiles, entries = (
        torch.from_numpy(x).to(device) for x in (table.programs, table.tiles, table.entries)
    )
    return _DeviceTable(programs, tiles, entries, branches.to(device), table.straddles)


def _rows_last(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its head dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(tensor.stride(i) for tensor in tensors for i in range(3))


def _launch(
    kernel: Any,
    blocks: Blocks,
    options: KernelOptions,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    *,
    keys: bool = False,
    **own: Any,
) -> None:
    """Run a kernel over its tiles; `own` are the arguments that the others do not have."""
    problem, head_dim = options.problem, query.shape[3]
    table = _device_table(problem, blocks.own, blocks.other, query.device, keys=keys)
    dropout = options.dropout_p
    names = ("batch", "row", "head")
    for tensor, name in ((query, "query"), (key, "key"), (value, "value")):
        own |= {f"{name}_{axis}": tensor.stride(i) for i, axis in enumerate(names)}
    kernel[(len(table.programs), query.shape[0])](
        query_ptr=query,
        key_ptr=key,
        value_ptr=value,
        # Without a mask or dropout the kernels never read these two.
        mask_ptr=key_mask if key_mask is not None else table.tiles,
        seed_ptr=options.seed if options.seed is not None else table.tiles,
        programs_ptr=table.programs,
        tiles_ptr=table.tiles,
        entries_ptr=table.entries,
        branches_ptr=table.branches,
        threshold=math.floor(dropout * 2**32),
        kept_scale=0.0 if dropout == 1 else 1 / (1 - dropout),
        log2_scale=options.scale * math.log2(math.e),
        length=problem.n,
        heads=problem.num_heads,
        group=problem.num_heads // problem.num_kv_heads,
        BRANCHES=problem.num_branches,
        CAUSAL=problem.is_causal,
        SEGMENTS=table.straddles,
        KEY_MASK=key_mask is not None,
        DROPOUT=dropout > 0,
        HEAD=head_dim,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        BLOCK_M=blocks.own,
        BLOCK_N=blocks.other,
        PRECISION="ieee",
        num_warps=blocks.warps,
        num_stages=blocks.stages,
        **own,
    )


def forward(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, options: KernelOptions
) -> tuple[Tensor, Tensor]:
    """(out, lse) of a whole sequence, one launch.

    Args:
        query: (b, n, H, d), any strides but a contiguous head dimension.
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: (b, n) bool, True = attend, or None.
        options: problem, scale, dropout.
    """
    query, key, value = (_rows_last(x) for x in (query, key, value))
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
    mask = None if key_mask is None else key_mask.contiguous().view(torch.uint8)
    if query.shape[1]:
        blocks = forward_blocks(query.shape[3], query.dtype)
        _launch(forward_kernel, blocks, options, query, key, value, mask, out_ptr=out, lse_ptr=lse)
    return out, lse


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    dout: Tensor,
    lse: Tensor,
    delta: Tensor,
    options: KernelOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of a whole sequence in the inputs' dtype, two launches.

    Args:
        query: (b, n, H, d), any strides but a contiguous head dimension.
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: (b, n) bool or None.
        dout: (b, n, H, d) in query's dtype.
        lse: (b, n, H) float32, global.
        delta: (b, n, H) float32, `<dout, out> - dlse`.
        options: problem, scale, dropout.
    """
    query, key, value, dout = (_rows_last(x) for x in (query, key, value, dout))
    dquery, dkey, dvalue = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)
    )
    mask = None if key_mask is None else key_mask.contiguous().view(torch.uint8)
    if not query.shape[1]:
        return dquery, dkey, dvalue
    common: dict[str, Any] = {
        "dout_ptr": dout,
        "lse_ptr": torch.where(lse == -torch.inf, torch.inf, lse * math.log2(math.e))
        .transpose(1, 2)
        .contiguous(),
        "delta_ptr": delta.transpose(1, 2).contiguous(),
        "scale": options.scale,
        "dout_batch": dout.stride(0),
        "dout_row": dout.stride(1),
        "dout_head": dout.stride(2),
    }
    blocks = dquery_blocks(query.shape[3], query.dtype)
    _launch(dquery_kernel, blocks, options, query, key, value, mask, dquery_ptr=dquery, **common)
    blocks = dkey_blocks(query.shape[3], query.dtype)
    _launch(
        dkey_dvalue_kernel,
        blocks,
        options,
        query,
        key,
        value,
        mask,
        keys=True,
        dkey_ptr=dkey,
        dvalue_ptr=dvalue,
        **common,
    )
    return dquery, dkey, dvalue
