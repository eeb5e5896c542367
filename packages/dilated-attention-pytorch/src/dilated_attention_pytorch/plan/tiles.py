"""Blocks of each program of the kernels, from the tables that these are launched on."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch

from ..kernels.gluon import blocks as hopper
from ..kernels.triton.blocks import dkey_blocks, dquery_blocks, forward_blocks
from ..schedule import Problem
from ..schedule.streams import StreamTable, stream_table
from ..schedule.tables import tile_table
from ..typing import IntArray

DIRECTIONS = FORWARD, BACKWARD = "forward", "backward"
GLUON, TRITON = "gluon", "triton"
# Matrix products of a block: of the forward; of dq, and of dk and dv.
_PRODUCTS: Final = {FORWARD: (2,), BACKWARD: (3, 4)}
# Those of them that sum over the columns of a head; of 64 columns `gluon` leaves out the last 16
# where they are empty.
_OVER_COLUMNS: Final = {FORWARD: (1,), BACKWARD: (2, 2)}
_FILLED: Final = 48
# Rows of the other side that a program could stream while it begins and ends: loads its own rows,
# fills its buffers and writes results.
_START: Final = {GLUON: 512, TRITON: 128}


class Kernel(NamedTuple):
    """Rows of a block on the program's side and on the other, and products of whole columns.

    A tile of `gluon` has two halves that compute side by side; a block is one half's. A program
    takes the time of `start` blocks beside those that it computes.
    """

    own: int
    other: int
    products: float
    start: float


class Blocks(NamedTuple):
    """Blocks of each program without a mask and with one, in launch order."""

    plain: IntArray
    masked: IntArray


def padded(backend: str, head_dim: int) -> int:
    """The head dimension that the kernels compute with."""
    if backend == GLUON:
        return hopper.forward_blocks(head_dim).columns
    return max(16, 1 << (head_dim - 1).bit_length())


def kernels(backend: str, direction: str, head_dim: int) -> tuple[Kernel, ...]:
    """Kernels of a direction, 16-bit inputs."""
    if backend == GLUON:
        sizes = hopper.forward_blocks if direction == FORWARD else hopper.backward_blocks
        block = sizes(head_dim).block
        left_out = 1 - _FILLED / 64 if head_dim <= _FILLED else 0.0
        return tuple(
            Kernel(hopper.HALF, block, count - left_out * over, _START[GLUON] / block)
            for count, over in zip(_PRODUCTS[direction], _OVER_COLUMNS[direction], strict=True)
        )
    makers = (forward_blocks,) if direction == FORWARD else (dquery_blocks, dkey_blocks)
    made = [make(head_dim, torch.bfloat16) for make in makers]
    return tuple(
        Kernel(blocks.own, blocks.other, count, _START[TRITON] / blocks.other)
        for blocks, count in zip(made, _PRODUCTS[direction], strict=True)
    )


@lru_cache(maxsize=512)
def blocks_of(problem: Problem, backend: str, direction: str, head_dim: int) -> tuple[Blocks, ...]:
    """Blocks of each kernel of a direction."""
    count = _gluon_blocks if backend == GLUON else _triton_blocks
    return tuple(
        count(problem, kernel, keys=number == 1)
        for number, kernel in enumerate(kernels(backend, direction, head_dim))
    )


def _triton_blocks(problem: Problem, kernel: Kernel, *, keys: bool) -> Blocks:
    table = tile_table(problem, kernel.own, kernel.other, keys=keys)
    _, rows, begin, end = np.moveaxis(table.entries.astype(np.int64), -1, 0)
    plain = (end - begin) // kernel.other
    masked = -((end - rows) // kernel.other) + -(-begin // kernel.other)
    order = table.programs[:, 1]
    return Blocks(plain.sum(1)[order], masked.sum(1)[order])


def _gluon_blocks(problem: Problem, kernel: Kernel, *, keys: bool) -> Blocks:
    return blocks_of_table(stream_table(problem, kernel.own, kernel.other, keys=keys))


def blocks_of_table(table: StreamTable) -> Blocks:
    """Blocks of the programs of a launch of `gluon`."""
    bits = table.edges[:, 4].astype(np.int64)
    tiles = table.tiles[table.programs[:, 1]].astype(np.int64)
    return Blocks(
        2 * _sums(table.pieces[:, 0].astype(np.int64), tiles[:, 5], tiles[:, 6]),
        _sums((bits & 1) + (bits >> 1 & 1), tiles[:, 7], tiles[:, 8]),
    )


def _sums(values: IntArray, begin: IntArray, end: IntArray) -> IntArray:
    """Sum of values[begin:end] for each pair."""
    total = np.concatenate([[0], np.cumsum(values)])
    found: IntArray = total[end] - total[begin]
    return found
