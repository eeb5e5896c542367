"""Rates of the kernels from a report of benchmarks, and how well they tell the others.

Kernels are compiled for causality and for a width of the head dimension. Of the cases of each such
kind, in the report's order, 1, 3, 5, ... calibrate and 0, 2, 4, ... judge; one that is alone of its
kind calibrates.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Final, NamedTuple

from ..pattern import DilationPattern
from ..schedule import Problem
from .tiles import BACKWARD, FORWARD, GLUON, TRITON, blocks_of, kernels, padded
from .work import Rate, Rates, listed, seconds, units

# H100 and H200 alike.
_MULTIPROCESSORS: Final = 132
# Programs that a multiprocessor may run at once: shared memory holds two of `gluon`.
_SLOTS: Final = {GLUON: range(1, 3), TRITON: range(1, 5)}
_MASKED: Final = tuple(1 + step / 10 for step in range(21))
# Less than the samples of a figure spread: p80 / p20 is 1.04 for half of them.
_NOISE: Final = 1.02


class Measured(NamedTuple):
    """One direction of one case of a report."""

    case: str
    problem: Problem
    head_dim: int
    backend: str
    direction: str
    seconds: float


def gpu_seconds(figure: dict[str, Any]) -> float:
    """GPU time of a figure: that of a call, or of its kernels alone where the host is slower."""
    bound = figure["host_us"] / 1e3 > figure["busy_ms"]
    milliseconds: float = figure["busy_ms" if bound else "ms"]
    return milliseconds / 1e3


def measured(report: dict[str, Any], backend: str, *, judging: bool) -> list[Measured]:
    """The half of a report that calibrates, or the half that judges."""
    kinds: dict[tuple[bool, int], list[dict[str, Any]]] = {}
    for one in report["results"]:
        if "forward" in one["backends"].get(backend, {}):
            kind = one["is_causal"], padded(backend, one["head_dim"])
            kinds.setdefault(kind, []).append(one)
    found = []
    for one in (one for kind in sorted(kinds) for one in _half(kinds[kind], judging=judging)):
        heads, figures = one["heads"], one["backends"][backend]
        rule = getattr(DilationPattern, one["rule"])
        pattern = rule(one["segment_lengths"], one["dilation_rates"])
        problem = Problem(pattern, one["n"], heads, heads, one["is_causal"])
        case = one["case"], problem, one["head_dim"], backend
        forward = gpu_seconds(figures["forward"])
        found.append(Measured(*case, FORWARD, forward))
        if "forward_backward" in figures:
            both = gpu_seconds(figures["forward_backward"])
            found.append(Measured(*case, BACKWARD, both - forward))
    return found


def _half(cases: list[dict[str, Any]], *, judging: bool) -> list[dict[str, Any]]:
    """Every second case of one kind."""
    return cases[not judging :: 2] if len(cases) > 1 else cases[judging:]


def _fit(cases: list[Measured], prices: dict[bool, tuple[float, ...]]) -> Rate:
    """The rate whose largest factor between predicted and measured is smallest, or nearly.

    Of those within `_NOISE` of it the one with the fewest programs at once: two cases would else
    be met exactly by any number of them.

    Args:
        cases: of one backend, direction and width.
        prices: costs of a mask to try without and with causality.
    """
    _, _, head_dim, backend, direction, _ = cases[0]
    count = len(kernels(backend, direction, head_dim))
    found: list[tuple[float, Rate]] = []
    for slots in product(_SLOTS[backend], repeat=count):
        ends = [
            [_ends(cases, is_causal, slots, price) for price in prices[is_causal]]
            for is_causal in (False, True)
        ]
        for plain, causal in product(*ends):
            least, most = min(plain[0], causal[0]), max(plain[1], causal[1])
            picoseconds = round(math.sqrt(least * most) * 1e12, 2)
            found.append((most / least, Rate(slots, plain[2], causal[2], picoseconds)))
    least = min(spread for spread, _ in found)
    near = [one for one in found if one[0] <= least * _NOISE]
    return min(near, key=lambda one: (sum(one[1].slots), one[0]))[1]


def _ends(
    cases: list[Measured], is_causal: bool, slots: tuple[int, ...], price: float
) -> tuple[float, float, float]:
    """Least and most seconds of a unit in the cases of one causality, and the price of a mask."""
    ratios = [
        one.seconds
        / units(
            one.problem,
            one.backend,
            one.direction,
            one.head_dim,
            1,
            slots,
            price,
            _MULTIPROCESSORS,
        )
        for one in cases
        if one.problem.is_causal == is_causal
    ]
    return min(ratios, default=math.inf), max(ratios, default=0.0), price


def calibrate(report: dict[str, Any]) -> dict[str, Any]:
    """Fit the rates to the calibrating half of a report.

    Where no case of a head dimension and causality has masked blocks, their cost comes from the
    other head dimension: a mask costs as much there, and a block in proportion to its columns.

    Returns:
        What `rates.json` holds.
    """
    rates, names = [], []
    for backend in (GLUON, TRITON):
        cases = measured(report, backend, judging=False)
        names += [one.case for one in cases]
        for direction in (FORWARD, BACKWARD):
            mine = [one for one in cases if one.direction == direction]
            rates += [
                {
                    "backend": backend,
                    "direction": direction,
                    "head_dim": width,
                    "slots": list(rate.slots),
                    "masked": rate.masked,
                    "masked_causal": rate.masked_causal,
                    "picoseconds": rate.picoseconds,
                }
                for width, rate in sorted(_by_width(mine).items())
            ]
    return {
        "device": report["environment"]["device"],
        "multiprocessors": _MULTIPROCESSORS,
        "calibrated_on": list(dict.fromkeys(names)),
        "rates": rates,
    }


def _by_width(cases: list[Measured]) -> dict[int, Rate]:
    """The rate of each padded head dimension, for cases of one backend and direction."""
    groups: dict[int, list[Measured]] = {}
    for one in cases:
        groups.setdefault(padded(one.backend, one.head_dim), []).append(one)
    known: dict[int, Rate] = {}
    for width, group in sorted(groups.items(), key=lambda item: -len(_masked_kinds(item[1]))):
        kinds = _masked_kinds(group)
        prices = {x: _MASKED if x in kinds else (_price(known, width, x),) for x in (False, True)}
        known[width] = _fit(group, prices)
    return known


def _price(known: dict[int, Rate], width: int, is_causal: bool) -> float:
    """The price of a mask at a width from that at another, 1 where none is known."""
    for other, rate in known.items():
        return round(1 + (rate.price(is_causal) - 1) * other / width, 2)
    return 1.0


def _masked_kinds(cases: list[Measured]) -> set[bool]:
    """Whether cases with masked blocks are causal."""
    return {
        one.problem.is_causal
        for one in cases
        for blocks in blocks_of(listed(one.problem), one.backend, one.direction, one.head_dim)
        if blocks.masked.any()
    }


class Judged(NamedTuple):
    """A time that was measured and what the rates say of it, in seconds."""

    case: str
    backend: str
    direction: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


def judge(report: dict[str, Any], backend: str, rates: Rates) -> list[Judged]:
    """Predict the half of a report that did not calibrate, forward, and forward + backward."""
    found: list[Judged] = []
    for one in measured(report, backend, judging=True):
        time = seconds(one.problem, backend, one.direction, one.head_dim, 1, rates)
        if one.direction == FORWARD:
            found.append(Judged(one.case, backend, FORWARD, one.seconds, time))
        else:
            last = found[-1]
            both = last.measured + one.seconds, last.predicted + time
            found.append(Judged(one.case, backend, "forward + backward", *both))
    return found
