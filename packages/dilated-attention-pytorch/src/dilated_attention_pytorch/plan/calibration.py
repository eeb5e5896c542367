"""Rates of the Triton kernels from a report of benchmarks, and how well they tell the others.

Every second measured case, in the report's order, calibrates; the cases between them judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ..pattern import DilationPattern
from ..schedule import Problem
from .work import BACKWARD, FORWARD, Rate, Rates, blocks_of, listed, padded, seconds, units

BACKEND: Final = "triton"
# H100 and H200 alike.
_MULTIPROCESSORS: Final = 132
_SLOTS: Final = {FORWARD: [(i,) for i in range(1, 5)]} | {
    BACKWARD: [(i, j) for i in range(1, 5) for j in range(1, 5)]
}
_MASKED: Final = [1 + step / 10 for step in range(13)]


class Measured(NamedTuple):
    """One direction of one case of a report."""

    case: str
    problem: Problem
    head_dim: int
    direction: str
    seconds: float


def measured(report: dict[str, Any], *, judging: bool) -> list[Measured]:
    """The half of a report that calibrates, or the half that judges."""
    timed = [one for one in report["results"] if "forward" in one["backends"].get(BACKEND, {})]
    found = []
    for one in timed[judging::2]:
        heads, backend = one["heads"], one["backends"][BACKEND]
        rule = getattr(DilationPattern, one["rule"])
        pattern = rule(one["segment_lengths"], one["dilation_rates"])
        problem = Problem(pattern, one["n"], heads, heads, one["is_causal"])
        forward = backend["forward"]["ms"] / 1e3
        found.append(Measured(one["case"], problem, one["head_dim"], FORWARD, forward))
        if "forward_backward" in backend:
            both = backend["forward_backward"]["ms"] / 1e3
            found.append(Measured(one["case"], problem, one["head_dim"], BACKWARD, both - forward))
    return found


def _fit(cases: list[Measured], masked: Iterable[float]) -> Rate:
    """The rate whose largest factor between predicted and measured is smallest."""
    best = math.inf, Rate((), 1.0, 0.0)
    for slots in _SLOTS[cases[0].direction]:
        for cost_of_mask in masked:
            ratios = [
                one.seconds
                / units(
                    one.problem,
                    one.direction,
                    one.head_dim,
                    1,
                    slots,
                    cost_of_mask,
                    _MULTIPROCESSORS,
                )
                for one in cases
            ]
            spread = max(ratios) / min(ratios)
            if spread < best[0]:
                middle = math.sqrt(max(ratios) * min(ratios))
                best = spread, Rate(slots, cost_of_mask, round(middle * 1e12, 2))
    return best[1]


def calibrate(report: dict[str, Any]) -> dict[str, Any]:
    """Fit the rates to the calibrating half of a report.

    Where no case of a head dimension has masked blocks, their cost is that of the other.

    Returns:
        What `rates.json` holds.
    """
    cases = measured(report, judging=False)
    rates = []
    for direction in (FORWARD, BACKWARD):
        mine = [one for one in cases if one.direction == direction]
        widths = sorted({padded(one.head_dim) for one in mine})
        known: dict[int, Rate] = {}
        by_width = {w: [one for one in mine if padded(one.head_dim) == w] for w in widths}
        for width in sorted(widths, key=lambda w: not _any_masks(by_width[w])):
            group = by_width[width]
            masked = _MASKED if _any_masks(group) else [r.masked for r in known.values()][:1]
            known[width] = _fit(group, masked or [1.0])
        rates += [
            {
                "direction": direction,
                "head_dim": width,
                "slots": list(rate.slots),
                "masked": rate.masked,
                "picoseconds": rate.picoseconds,
            }
            for width, rate in sorted(known.items())
        ]
    return {
        "device": report["environment"]["device"],
        "backend": BACKEND,
        "multiprocessors": _MULTIPROCESSORS,
        "calibrated_on": list(dict.fromkeys(one.case for one in cases)),
        "rates": rates,
    }


def _any_masks(cases: list[Measured]) -> bool:
    return any(
        edges.any()
        for one in cases
        for _, edges in blocks_of(listed(one.problem), one.direction, one.head_dim)
    )


class Judged(NamedTuple):
    """A time that was measured and what the rates say of it, in seconds."""

    case: str
    direction: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


def judge(report: dict[str, Any], rates: Rates) -> list[Judged]:
    """Predict the half of a report that did not calibrate, forward, and forward + backward."""
    found: list[Judged] = []
    for one in measured(report, judging=True):
        time = seconds(one.problem, one.direction, one.head_dim, 1, rates)
        if one.direction == FORWARD:
            found.append(Judged(one.case, FORWARD, one.seconds, time))
        else:
            last = found[-1]
            both = last.measured + one.seconds, last.predicted + time
            found.append(Judged(one.case, "forward + backward", *both))
    return found
