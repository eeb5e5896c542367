"""Seconds that the kernels of one GPU compute, from the tiles that they are launched on.

A program costs its blocks: one that needs no mask costs 1, one that does its price. Programs start
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
from ..kernels.select import Request, hopper_refusal
from ..schedule import Problem
from ..schedule.classes import count_cells
from .tiles import GLUON, TRITON, Blocks, Kernel, blocks_of, kernels, padded

# Tiles are listed up to here; beyond it the time of a pair is the one found here.
_MOST_ROWS: Final = 1 << 18
_MOST_CELLS: Final = 1 << 11
# Branches together select alike after so many rows in the measured cases: 12 and 16.
LONGEST_PERIOD: Final = 64
# So many programs for each place fill it evenly.
_MANY: Final = 60


@dataclass(frozen=True, slots=True)
class Rate:
    """What was fitted for one backend, direction and width of the head dimension.

    Args:
        slots: programs that a multiprocessor runs at once, for each kernel of the direction.
        masked: cost of a block with a mask over one without, in kernels that are not causal.
        masked_causal: the same in causal ones, which compare positions of queries and keys as well.
        picoseconds: of a place, for one product of one executed pair.
    """

    slots: tuple[int, ...]
    masked: float
    masked_causal: float
    picoseconds: float

    def price(self, is_causal: bool) -> float:
        """Cost of a block with a mask over one without."""
        return self.masked_causal if is_causal else self.masked


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one GPU by (backend, direction, padded head dimension)."""

    device: str
    multiprocessors: int
    by_kind: dict[tuple[str, str, int], Rate]


@lru_cache(maxsize=1)
def fitted() -> Rates:
    """The rates in `rates.json`, which `python -m benchmarks.calibrate` writes."""
    return read_rates(json.loads(files(__package__).joinpath("rates.json").read_text("utf-8")))


def read_rates(found: dict[str, Any]) -> Rates:
    """Rates from what `calibration.calibrate` returned."""
    by_kind = {
        (one["backend"], one["direction"], one["head_dim"]): Rate(
            tuple(one["slots"]), one["masked"], one["masked_causal"], one["picoseconds"]
        )
        for one in found["rates"]
    }
    return Rates(found["device"], found["multiprocessors"], by_kind)


def backend_of(problem: Problem, dtype: torch.dtype, head_dim: int) -> str:
    """What `backend="auto"` takes for a 16-bit call on one Hopper GPU."""
    request = Request(problem, dtype, torch.device("cuda"), head_dim)
    return GLUON if hopper_refusal(request) is None else TRITON


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


def last_end(work: npt.NDArray[np.float64], places: int) -> float:
    """When the last program ends, each begun in order on the place that is free first."""
    if len(work) > _MANY * places:
        return float(work.sum() / places + work.max() / 2)
    ends = [0.0] * places
    for one in work.tolist():
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def kernel_units(
    blocks: Blocks, kernel: Kernel, batch: int, slots: int, masked: float, multiprocessors: int
) -> float:
    """The time of a launch where a product of a pair takes a place one second."""
    work = np.tile(blocks.plain + masked * blocks.masked + kernel.start, batch)
    end = last_end(work, slots * multiprocessors)
    return end * slots * kernel.own * kernel.other * kernel.products


@lru_cache(maxsize=8192)
def _kernel_units(
    problem: Problem,
    backend: str,
    direction: str,
    number: int,
    head_dim: int,
    batch: int,
    slots: int,
    masked: float,
    multiprocessors: int,
) -> float:
    blocks = blocks_of(problem, backend, direction, head_dim)[number]
    kernel = kernels(backend, direction, head_dim)[number]
    return kernel_units(blocks, kernel, batch, slots, masked, multiprocessors)


def units(
    problem: Problem,
    backend: str,
    direction: str,
    head_dim: int,
    batch: int,
    slots: tuple[int, ...],
    masked: float,
    multiprocessors: int,
) -> float:
    """The time of a direction where a product of a pair takes a place one second."""
    short = listed(problem)
    call = short, backend, direction
    total = sum(
        _kernel_units(*call, number, head_dim, batch, of_kernel, masked, multiprocessors)
        for number, of_kernel in enumerate(slots)
    )
    return total * cost.visible_pairs(problem) / max(1, cost.visible_pairs(short))


def rate_of(rates: Rates, backend: str, direction: str, head_dim: int) -> Rate:
    """The rate of a direction.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rates.by_kind.get((backend, direction, padded(backend, head_dim)))
    if rate is None:
        known = sorted({width for name, _, width in rates.by_kind if name == backend})
        raise ValueError(
            f"times of the backend {backend} were measured for head dimensions that pad to "
            f"{known}, got {head_dim}"
        )
    return rate


def seconds(
    problem: Problem, backend: str, direction: str, head_dim: int, batch: int, rates: Rates
) -> float:
    """GPU time of one direction of a call on one GPU.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rate_of(rates, backend, direction, head_dim)
    found = units(
        problem,
        backend,
        direction,
        head_dim,
        batch,
        rate.slots,
        rate.price(problem.is_causal),
        rates.multiprocessors,
    )
    return found * rate.picoseconds * 1e-12


@lru_cache(maxsize=256)
def _least_products(problem: Problem, backend: str, direction: str, head_dim: int) -> float:
    """Fewest products that the kernels of a direction compute for one pair of the contract.

    `gluon` computes once what several branches hold. How often that is, the tiles tell; where they
    are not listed, no branch but the largest adds a pair.
    """
    found = 0.0
    for number, kernel in enumerate(kernels(backend, direction, head_dim)):
        share = 1.0
        if backend == GLUON and period(problem) > LONGEST_PERIOD:
            share = 1 / problem.num_branches
        elif backend == GLUON:
            short = listed(problem)
            blocks = blocks_of(short, backend, direction, head_dim)[number]
            pairs = int(blocks.plain.sum() + blocks.masked.sum()) * kernel.own * kernel.other
            share = min(1.0, pairs / max(1, cost.visible_pairs(short)))
        found += share * kernel.products
    return found


def least_seconds(
    problem: Problem, pairs: int, backend: str, direction: str, head_dim: int, rates: Rates
) -> float:
    """Time of so many of a problem's pairs in blocks without masks that fill every multiprocessor.

    Raises:
        ValueError: no measurement tells the rate of this head dimension.
    """
    rate = rate_of(rates, backend, direction, head_dim)
    products = pairs * _least_products(problem, backend, direction, head_dim)
    return products * rate.picoseconds * 1e-12 / rates.multiprocessors
