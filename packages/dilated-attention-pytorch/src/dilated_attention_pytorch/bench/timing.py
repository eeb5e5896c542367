"""Figures of the calls of one case: every implementation in turn, in several rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .machine import Call, Machine
from .power import PowerMonitor

_MOST_CALLS: Final = 200
# A device's queue holds about a thousand launches; a host that fills it waits.
_QUEUED: Final = 400
# What nvidia-smi reads lags behind.
_LAG_S: Final = 0.04


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on a figure.

    Args:
        seconds: of calls, for each figure; a long call is made once in each round.
        rounds: passes over all implementations, so that a drift of the clock meets them all.
    """

    seconds: float = 0.3
    rounds: int = 3


QUICK: Final = Effort(seconds=0.05, rounds=2)


@dataclass(slots=True)
class _Samples:
    times: int
    milliseconds: list[float] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)


def figures(
    calls: Mapping[str, Call], machine: Machine, monitor: PowerMonitor, effort: Effort
) -> dict[str, dict[str, Any]]:
    """Time and count calls that have run before.

    Args:
        calls: by name.
        machine: the timer.
        monitor: watches power and clock.
        effort: how much to spend.

    Returns:
        By name: `ms` with `ms_p20` and `ms_p80`, `samples`, and where the device tells them
        `busy_ms`, `launches`, `host_us`, `peak_mib`, `power_w`, `sm_mhz`.
    """
    found = {}
    for name, call in calls.items():
        once = machine.milliseconds(call, 1)[0] / 1e3
        times = round(effort.seconds / effort.rounds / max(once, 1e-6))
        found[name] = _Samples(min(max(times, 1), _MOST_CALLS))
    for _ in range(effort.rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            found[name].milliseconds += machine.milliseconds(call, found[name].times)
            found[name].windows.append((start + _LAG_S, time.perf_counter() + _LAG_S))
    return {name: _figure(found[name], call, machine, monitor) for name, call in calls.items()}


def _figure(
    samples: _Samples, call: Call, machine: Machine, monitor: PowerMonitor
) -> dict[str, Any]:
    times = samples.milliseconds
    deciles = statistics.quantiles(times, n=10, method="inclusive") if len(times) > 1 else times * 9
    figure: dict[str, Any] = {
        "ms": round(statistics.median(times), 4),
        "ms_p20": round(deciles[1], 4),
        "ms_p80": round(deciles[7], 4),
        "samples": len(times),
    }
    counts = machine.count(call)
    queued = _QUEUED // (counts.launches or 1)
    host = machine.host_microseconds(call, max(1, min(queued, len(times))))
    watts, clock = monitor.between(samples.windows)
    more = {
        "busy_ms": counts.busy_ms and round(counts.busy_ms, 4),
        "launches": counts.launches,
        "host_us": host and round(statistics.median(host), 1),
        "peak_mib": None if counts.peak_bytes is None else round(counts.peak_bytes / 2**20, 2),
        "power_w": watts,
        "sm_mhz": clock,
    }
    return figure | {name: value for name, value in more.items() if value is not None}
