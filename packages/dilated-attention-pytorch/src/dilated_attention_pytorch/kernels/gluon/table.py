"""Stream tables on the device, packed into one array, and the views that TMA reads through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ...schedule import Problem
from ...schedule.streams import StreamTable, View, stream_table
from .blocks import HALF

_RECORD = 16


@dataclass(frozen=True, eq=False, slots=True)
class DeviceTable:
    """A stream table as the kernels read it.

    Args:
        array: records, pieces and edges, int32.
        programs: number of programs.
        views: what the streams are read through.
        covered: every row is in some tile.
    """

    array: Tensor
    programs: int
    views: tuple[View, ...]
    covered: bool


def pack(table: StreamTable) -> np.ndarray[Any, np.dtype[np.int32]]:
    """One array of records, pieces and edges, as `tile` says."""
    # A kernel looks at the entry after the last, so one of 0 follows the pieces.
    pieces = np.concatenate([table.pieces, np.zeros((1, 8), dtype=np.int32)])
    piece_base = _RECORD * len(table.programs)
    edge_base = piece_base + pieces.size
    if edge_base + table.edges.size > np.iinfo(np.int32).max:
        raise ValueError("the tables would have more than 2^31 entries")
    tiles = table.tiles[table.programs[:, 1]]
    blocks = np.concatenate([[0], np.cumsum(table.pieces[:, 0])])[:, None]
    records = np.concatenate(
        [
            table.programs[:, :1],
            tiles[:, :5],
            piece_base + 8 * tiles[:, 5:7],
            edge_base + 8 * tiles[:, 7:],
            blocks[tiles[:, 6]] - blocks[tiles[:, 5]],
            np.zeros((len(tiles), _RECORD - 13), dtype=np.int64),
        ],
        axis=1,
    )
    return np.concatenate([x.reshape(-1) for x in (records, pieces, table.edges)]).astype(np.int32)


@lru_cache(maxsize=64)
def device_table(
    problem: Problem, block: int, device: torch.device, *, keys: bool = False
) -> DeviceTable:
    """The table of one side, made once and kept on the device."""
    table = stream_table(problem, HALF, block, keys=keys)
    return DeviceTable(
        torch.from_numpy(pack(table)).to(device),
        len(table.programs),
        table.views,
        table.covered,
    )


def descriptors(
    tensor: Tensor, views: tuple[View, ...], block: int, columns: int
) -> tuple[TensorDescriptor, ...]:
    """One descriptor a view, (b, heads, residues, rows, d) in blocks of `block` rows.

    They do not keep the tensor; `moved` gives them one.
    """
    b, _, heads, d = tensor.shape
    batch, row, head, _ = tensor.stride()
    shape = [1, 1, 1, block, columns]
    dtype = gl.bfloat16 if tensor.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for(shape, dtype)
    made = tuple(
        TensorDescriptor(
            tensor,
            [b, heads, view.residues, view.rows, d],
            [batch, head, row, view.rate * row, 1],
            shape,
            layout,
        )
        for view in views
    )
    for descriptor in made:
        descriptor.base = None
    return made


def moved(descriptor: TensorDescriptor, tensor: Tensor) -> TensorDescriptor:
    """The descriptor for a tensor of the shape and strides that it was made for."""
    made: TensorDescriptor = object.__new__(TensorDescriptor)
    made.__dict__.update(descriptor.__dict__)
    made.base = tensor
    return made


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself if TMA can read it, or else a copy."""
    strides, size = tensor.stride(), tensor.element_size()
    good = strides[3] == 1 and tensor.data_ptr() % 16 == 0
    good &= all(stride > 0 and stride * size % 16 == 0 for stride in strides[:3])
    return tensor if good else tensor.contiguous()
