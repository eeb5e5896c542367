"""Seconds that the Triton kernels compute, from the tiles that they are launched on.

A program costs its blocks: one that needs no mask costs 1, one that does `masked`. Programs start
in launch order on the first of `slots` free places of each multiprocessor. The time of a kernel is
the end of the last program, times one rate; so uneven tiles, masks and a short last wave count.
"""

from __future__ import annotations

import heapq
import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from .. import cost
from ..kernels.triton.blocks import Blocks, dkey_blocks, dquery_blocks, forward_blocks
from ..schedule import Problem
from ..schedule.classes import count_cells
from ..schedule.tables import tile_table
from ..typing import IntArray

FORWARD, BACKWARD = "forward", "backward"
# Tiles are listed up to here; beyond it the time of a pair is the one found here.
_MOST_ROWS: Final = 1 << 18
_MOST_CELLS: Final = 1 << 11
# So many programs for each place fill it evenly.
_MANY: Final = 60
# Matrix products of a block; the unit of a rate is one product of one pair.
_PRODUCTS: Final = {FORWARD: (2,), BACKWARD: (3, 4)}

Work = tuple[IntArray, IntArray]


@dataclass(frozen=True, slots=True)
class Rate:
    """What was fitted for one direction and width of the head dimension.

    Args:
        slots: programs that a multiprocessor runs at once, for each kernel of the direction.
        masked: cost of a block with a mask over one without.
        picoseconds: of a place, for one product of one pair.
    """

    slots: tuple[int, ...]
    masked: float
    picoseconds: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one GPU by (direction, padded head dimension), and where they come from."""

    device: str
    multiprocessors: int
    by_kind: dict[tuple[str, int], Rate]


def padded(head_dim: int) -> int:
    """The head dimension that the kernels compute with."""
    return max(16, 1 << (head_dim - 1).bit_length())


@lru_cache(maxsize=1)
def fitted() -> Rates:
    """The rates in `rates.json`, which `python -m benchmarks.calibrate` writes."""
    return read_rates(json.loads(files(__package__).joinpath("rates.json").read_text("utf-8")))


def read_rates(found: dict[str, Any]) -> Rates:
    """Rates from what `calibration.calibrate` returned."""
    by_kind = {
        (one["direction"], one["head_dim"]): Rate(
            tuple(one["slots"]), one["masked"], one["picoseconds"]
        )
        for one in found["rates"]
    }
    return Rates(found["device"], found["multiprocessors"], by_kind)


def kernels(direction: str, head_dim: int) -> tuple[Blocks, ...]:
    """Blocks of each kernel of a direction, 16-bit inputs."""
    if direction == FORWARD:
        return (forward_blocks(head_dim, torch.bfloat16),)
    return dquery_blocks(head_dim, torch.bfloat16), dkey_blocks(head_dim, torch.bfloat16)


def period(problem: Problem) -> int:
    """Rows after which the branches select alike, segments aside."""
    return math.lcm(*(branch.dilation_rate for branch in problem.pattern.branches))


@lru_cache(maxsize=256)
def listed(problem: Problem) -> Problem:
    """The problem itself, or its beginning where it has more tiles than are worth listing."""
    n = min(problem.n, _MOST_ROWS)
    while count_cells(replace(problem, n=n)) > _MOST_CELLS and n > 1:
        n //= 2
    return replace(problem, n=n)


@lru_cache(maxsize=256)
def blocks_of(problem: Problem, direction: str, head_dim: int) -> tuple[Work, ...]:
    """For each kernel: unmasked and masked blocks of each program, in launch order."""
    found = []
    for number, blocks in enumerate(kernels(direction, head_dim)):
        table = tile_table(problem, blocks.own, blocks.other, keys=number == 1)
        _, rows, begin, end = np.moveaxis(table.entries.astype(np.int64), -1, 0)
        inside = (end - begin) // blocks.other
        edges = -((end - rows) // blocks.other) + -(-begin // blocks.other)
        order = table.programs[:, 1]
        found.append((inside.sum(1)[order], edges.sum(1)[order]))
    return tuple(found)


def last_end(work: npt.NDArray[np.float64], places: int) -> float:
    """When the last program ends, each begun in order on the place that is free first."""
    if len(work) > _MANY * places:
        return float(work.sum() / places + work.max() / 2)
    ends = [0.0] * places
    for one in work.tolist():
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


@lru_cache(maxsize=4096)
def _kernel_units(
    problem: Problem,
    direction: str,
    number: int,
    head_dim: int,
    batch: int,
    slots: int,
    masked: float,
    multiprocessors: int,
) -> float:
    inside, edges = blocks_of(problem, direction, head_dim)[number]
    blocks, products = kernels(direction, head_dim)[number], _PRODUCTS[direction][number]
    end = last_end(np.tile(inside + masked * edges, batch), slots * multiprocessors)
    return end * slots * blocks.own * blocks.other * products


def units(
    problem: Problem,
    direction: str,
    head_dim: int,
    batch: int,
    slots: tuple[int, ...],
    masked: float,
    multiprocessors: int,
) -> float:
    """The time of a direction where a product of a pair takes a place one second."""
    short = listed(problem)
    total = sum(
        _kernel_units(short, direction, number, head_dim, batch, of_kernel, masked, multiprocessors)
        for number, of_kernel in enumerate(slots)
    )
    return total * cost.visible_pairs(problem) / max(1, cost.visible_pairs(short))


def rate_of(rates: Rates, direction: str, head_dim: int) -> Rate:
    """The rate of a direction.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rates.by_kind.get((direction, padded(head_dim)))
    if rate is None:
        known = sorted({width for _, width in rates.by_kind})
        raise ValueError(
            f"times were measured for head dimensions that pad to {known}, got {head_dim}"
        )
    return rate


def seconds(problem: Problem, direction: str, head_dim: int, batch: int, rates: Rates) -> float:
    """Time of one direction of a call on one GPU.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rate_of(rates, direction, head_dim)
    places = rates.multiprocessors
    found = units(problem, direction, head_dim, batch, rate.slots, rate.masked, places)
    return found * rate.picoseconds * 1e-12


def least_seconds(pairs: int, direction: str, head_dim: int, rates: Rates) -> float:
    """Time of so many pairs in full blocks without masks that fill every multiprocessor.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rate_of(rates, direction, head_dim)
    products = pairs * sum(_PRODUCTS[direction])
    return products * rate.picoseconds * 1e-12 / rates.multiprocessors
