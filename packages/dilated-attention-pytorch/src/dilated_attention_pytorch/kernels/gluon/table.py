"""Stream tables on the device, packed into one array, and the views that TMA reads through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...schedule.streams import StreamTable, View
from .blocks import HALF

_RECORD = 16


@dataclass(frozen=True, eq=False, slots=True)
class DeviceTable:
    """A stream table as the kernels read it.

    Args:
        array: records, pieces and edges, int32.
        programs: number of programs.
        views: what the streams are read through.
    """

    array: Tensor
    programs: int
    views: tuple[View, ...]


def pack(table: StreamTable, *, stacked: bool = False) -> np.ndarray[Any, np.dtype[np.int32]]:
    """One array of records, pieces and edges, as `tile` says.

    Args:
        table: tiles and their streams.
        stacked: gradients of the programs' rows go one program after the other, not where the rows
            are.
    """
    # A kernel looks at the entry after the last, so one of 0 follows the pieces.
    pieces = np.concatenate([table.pieces, np.zeros((1, 8), dtype=np.int32)])
    piece_base = _RECORD * len(table.programs)
    edge_base = piece_base + pieces.size
    if edge_base + table.edges.size > np.iinfo(np.int32).max:
        raise ValueError("the tables would have more than 2^31 entries")
    tiles = table.tiles[table.programs[:, 1]]
    blocks = np.concatenate([[0], np.cumsum(table.pieces[:, 0])])[:, None]
    results = tiles[:, [0, 2, 4]]
    if stacked:
        first = 2 * HALF * np.arange(len(tiles))
        results = np.stack([first, first + HALF, np.ones_like(first)], 1)
    records = np.concatenate(
        [
            table.programs[:, :1],
            tiles[:, :5],
            piece_base + 8 * tiles[:, 5:7],
            edge_base + 8 * tiles[:, 7:],
            blocks[tiles[:, 6]] - blocks[tiles[:, 5]],
            results,
        ],
        axis=1,
    )
    assert records.shape[1] == _RECORD
    return np.concatenate([x.reshape(-1) for x in (records, pieces, table.edges)]).astype(np.int32)


@lru_cache(maxsize=256)
def device_table(table: StreamTable, device: torch.device, *, stacked: bool = False) -> DeviceTable:
    """The table on the device, kept there."""
    array = torch.from_numpy(pack(table, stacked=stacked)).to(device)
    return DeviceTable(array, len(table.programs), table.views)


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself if TMA can read it, or else a copy."""
    strides, size = tensor.stride(), tensor.element_size()
    good = strides[3] == 1 and tensor.data_ptr() % 16 == 0
    good &= all(stride > 0 and stride * size % 16 == 0 for stride in strides[:3])
    return tensor if good else tensor.contiguous()
