"""The backend: whole sequences through the Hopper kernels, and some tiles of a rank's own rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from ...schedule import Problem
from ...schedule.streams import stream_table
from ..options import KernelOptions, Result
from ..tiles import Sides, Tiles
from ..triton.prepare import prepare
from . import MOST_VIEWS as MOST_VIEWS
from .blocks import HALF as HALF
from .blocks import backward_blocks, forward_blocks
from .dkey_dvalue import dkey_dvalue_kernel
from .dquery import dquery_kernel
from .forward import forward_kernel
from .launcher import Launcher
from .table import device_table
from .table import readable as readable

_KERNELS: Final = {
    "forward": forward_kernel,
    "dquery": dquery_kernel,
    "dkey_dvalue": dkey_dvalue_kernel,
}


def executed_pairs(problem: Problem) -> int:
    """Pairs that the forward computes for one batch entry, in whole blocks, shared ones once."""
    return stream_table(problem, HALF, forward_blocks(128).block).executed


def block(head_dim: int, *, backward: bool) -> int:
    """Rows of the streamed side that come at a time."""
    return (backward_blocks(head_dim) if backward else forward_blocks(head_dim)).block


def whole_tiles(problem: Problem, head_dim: int, *, backward: bool, keys: bool = False) -> Tiles:
    """The tiles of a whole sequence."""
    rows = block(head_dim, backward=backward)
    return Tiles.of(problem, stream_table(problem, HALF, rows, keys=keys))


@dataclass(frozen=True, slots=True)
class _Call:
    """All that a launch depends on but the tensors' addresses: the key of what is kept.

    `strides` are those of what the kernel reads and writes by rows, and those of what streams.
    """

    kernel: str
    tiles: Tiles
    scale: float
    batch: int
    length: int
    head_dim: int
    dtypes: tuple[torch.dtype, ...]
    device: torch.device
    strides: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def _launcher(call: _Call, rows: int) -> Launcher:
    """The kernel; the first `rows` of the strides are numbers that it takes."""
    tiles, d = call.tiles, call.head_dim
    forward = call.kernel == "forward"
    blocks = forward_blocks(d) if forward else backward_blocks(d)
    table = device_table(tiles.table, call.device, stacked=tiles.stacked)
    strides = (x for some in call.strides[:rows] for x in some)
    numbers = (*strides, call.length, tiles.num_heads, tiles.group, call.scale * math.log2(math.e))
    views = tuple((view.source, view) for view in table.views)
    flags = (tiles.is_causal,) if call.kernel == "dkey_dvalue" else (tiles.is_causal, tiles.resume)
    return Launcher(
        _KERNELS[call.kernel],
        (table.programs, call.batch, 1),
        table.array,
        numbers,
        (views, views),
        (len(views), blocks.block, HALF, blocks.columns, d, blocks.stages, *flags),
        block=blocks.block,
        columns=blocks.columns,
    )


def _by_rows(tensor: Tensor) -> tuple[int, ...]:
    """Strides of (b, n, h, d) but the last; 0 where there is one head, whatever its number."""
    batch, row, head, _ = tensor.stride()
    return batch, row, 0 if tensor.shape[2] == 1 else head


def _launch(
    kernel: str,
    tiles: Tiles,
    scale: float,
    length: int,
    rows: tuple[Tensor, ...],
    streamed: Sequence[tuple[Tensor, ...]],
    *tensors: Tensor,
) -> None:
    first = rows[0]
    if not len(tiles.table.programs):
        return
    strides = [_by_rows(x) for x in rows]
    strides += [x.stride() for side in streamed for x in side]
    call = _Call(
        kernel,
        tiles,
        scale,
        first.shape[0],
        length,
        first.shape[3],
        (first.dtype, tensors[-1].dtype),
        first.device,
        tuple(strides),
    )
    with torch.cuda.device_of(first):
        _launcher(call, len(rows))(streamed, *tensors)


def forward_tiles(
    tiles: Tiles, query: Tensor, streamed: Sides, out: Tensor, lse: Tensor, scale: float
) -> None:
    """`TileBackend.forward_tiles`, one launch."""
    _launch("forward", tiles, scale, query.shape[1], (query,), streamed, query, lse, out)


def dquery_tiles(
    tiles: Tiles,
    query: Tensor,
    streamed: Sides,
    dout: Tensor,
    statistics: tuple[Tensor, Tensor],
    dquery: Tensor,
    scale: float,
) -> None:
    """`TileBackend.dquery_tiles`, one launch; statistics are lse in base 2 and delta, (b, H, n)."""
    tensors = (query, dout, *statistics, dquery)
    _launch("dquery", tiles, scale, query.shape[1], (query, dout), streamed, *tensors)


def dkey_tiles(
    tiles: Tiles,
    key: Tensor,
    value: Tensor,
    streamed: tuple[Tensor, Tensor],
    statistics: tuple[Tensor, Tensor],
    gradients: tuple[Tensor, Tensor],
    scale: float,
) -> None:
    """`TileBackend.dkey_tiles`, one launch."""
    query, dout = streamed
    rows = (key, value, gradients[0])
    tensors = (key, value, *statistics, *gradients)
    _launch("dkey_dvalue", tiles, scale, query.shape[1], rows, ((query,), (dout,)), *tensors)


def statistics(dout: Tensor, dlse: Tensor | None, result: Result) -> tuple[Tensor, Tensor]:
    """lse in base 2 and delta, both (b, H, n), one launch."""
    with torch.cuda.device_of(dout):
        return prepare(dout, dlse, result.out, result.lse)


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
    tiles = whole_tiles(options.problem, query.shape[3], backward=False)
    covered = tiles.table.covered
    out = _result(query, query.shape, covered, wide)
    if not covered:
        lse.fill_(-torch.inf)
    forward_tiles(tiles, query, ((key,), (value,)), out, lse, options.scale)
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
    tiles, key_tiles = (
        whole_tiles(options.problem, query.shape[3], backward=True, keys=keys)
        for keys in (False, True)
    )
    found, scale = statistics(dout, dlse, result), options.scale
    dquery = _result(query, query.shape, tiles.table.covered, wide)
    dkey, dvalue = (_result(key, key.shape, key_tiles.table.covered, wide) for _ in range(2))
    dquery_tiles(tiles, query, ((key,), (value,)), dout, found, dquery, scale)
    dkey_tiles(key_tiles, key, value, (query, dout), found, (dkey, dvalue), scale)
    return dquery, dkey, dvalue
