"""Stream tables on the device, packed into one array, and the views that TMA reads through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...schedule.streams import StreamTable, View
from ...typing import IntArray
from .blocks import HALF

_RECORD = 32


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
    pieces, places = _with_whole_edges(table)
    piece_base = _RECORD * len(table.programs)
    edge_base = piece_base + pieces.size
    # A kernel looks at the entry after the last, so one of 0 follows the edges.
    edges = np.concatenate([table.edges, np.zeros((1, 8), dtype=np.int32)])
    if edge_base + edges.size > np.iinfo(np.int32).max:
        raise ValueError("the tables would have more than 2^31 entries")
    numbers = table.programs[:, 1]
    tiles = table.tiles[numbers]
    results = tiles[:, [0, 2, 4]]
    if stacked:
        first = 2 * HALF * np.arange(len(tiles))
        results = np.stack([first, first + HALF, np.ones_like(first)], 1)
    blocks = np.concatenate([[0], np.cumsum(pieces[:, 0])])
    records = np.concatenate(
        [
            table.programs[:, :1],
            tiles[:, :5],
            piece_base + 8 * places[numbers, :2],
            edge_base + 8 * tiles[:, 7:11],
            piece_base + 8 * places[numbers, 2:],
            edge_base + 8 * tiles[:, 11:13],
            blocks[places[numbers, 2:]] - blocks[places[numbers, :1]],
            results,
            np.zeros((len(tiles), _RECORD - 21), dtype=np.int64),
        ],
        axis=1,
    )
    assert records.shape[1] == _RECORD
    return np.concatenate([x.reshape(-1) for x in (records, pieces, edges)]).astype(np.int32)


def _with_whole_edges(table: StreamTable) -> tuple[IntArray, IntArray]:
    """Pieces, each tile's followed by the edges that a half of it meets as pieces.

    Also (tiles, 4): where a tile's pieces begin and end, and where those of either half end.
    """
    begin, end, first = table.tiles[:, 5], table.tiles[:, 6], table.tiles[:, 7]
    count = table.tiles[:, 11:13] - first[:, None]
    assert not count.all(1).any(), "one half of a tile meets edges as pieces"
    more = count.max(1)
    tile = np.repeat(np.arange(len(more)), more)
    index = np.arange(len(tile)) - np.repeat(np.cumsum(more) - more, more)
    weight = table.edges[first[tile] + index, 3]
    # Neighbours of one weight are one piece.
    new = np.append(True, (np.diff(tile) != 0) | (np.diff(weight) != 0))[: len(tile)]
    starts = np.flatnonzero(new)
    joined = np.zeros((len(starts), 8), dtype=np.int64)
    joined[:, 0] = np.diff(np.append(starts, len(tile)))
    joined[:, 1] = weight[starts]
    tile = tile[starts]
    owner = np.repeat(np.arange(len(begin)), end - begin)
    order = np.argsort(np.concatenate([owner, tile]), kind="stable")
    pieces = np.concatenate([table.pieces, joined])[order]
    before = np.concatenate([[0], np.cumsum(np.bincount(tile, minlength=len(begin)))])
    own_begin, own_end = begin + before[:-1], end + before[:-1]
    last = end + before[1:]
    ends = [np.where(count[:, half] > 0, last, own_end) for half in range(2)]
    return pieces, np.stack([own_begin, own_end, *ends], 1)


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
