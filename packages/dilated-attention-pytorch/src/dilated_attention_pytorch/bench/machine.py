"""How calls are timed and counted on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch

Call = Callable[[], object]

# Zeroed before every timed call: its inputs come from memory, not from the cache of the call
# before, and the device is busy while the host issues the call.
_FLUSH_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Counts:
    """What one call does on a GPU; None where the device has no such counter.

    Args:
        launches: kernels launched; copies and fills by the driver are none.
        busy_ms: their times added up.
        peak_bytes: most bytes allocated at once, beyond what was before the call.
    """

    launches: int | None = None
    busy_ms: float | None = None
    peak_bytes: int | None = None


class Machine(Protocol):
    """Timer and counters of one device."""

    device: torch.device

    def milliseconds(self, call: Call, times: int) -> list[float]:
        """The duration of each of several calls on the device."""
        ...

    def host_microseconds(self, call: Call, times: int) -> list[float] | None:
        """How long each of several calls in a row keeps the host; None where host is device."""
        ...

    def count(self, call: Call) -> Counts:
        """Counters of one call."""
        ...

    def clear(self) -> None:
        """Give cached memory back."""
        ...


class CpuMachine:
    """The CPU: wall time, and no counters."""

    device = torch.device("cpu")

    def milliseconds(self, call: Call, times: int) -> list[float]:
        """Wall time of each call."""
        found = []
        for _ in range(times):
            start = time.perf_counter()
            call()
            found.append((time.perf_counter() - start) * 1e3)
        return found

    def host_microseconds(self, call: Call, times: int) -> list[float] | None:
        """Nothing: the call computes on the host."""
        return None

    def count(self, call: Call) -> Counts:
        """Nothing: PyTorch keeps no such counters on the CPU."""
        return Counts()

    def clear(self) -> None:
        """Nothing is cached."""


class CudaMachine:
    """A CUDA device: events around each call, the allocator's peak, the profiler's kernels."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=device)

    def milliseconds(self, call: Call, times: int) -> list[float]:
        """Time between events before and after each call."""
        events = [
            tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(times)
        ]
        torch.cuda.synchronize()
        for start, end in events:
            self._flush.zero_()
            start.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    def host_microseconds(self, call: Call, times: int) -> list[float] | None:
        """Time until each call returns; few enough calls do not fill the device's queue."""
        found = []
        torch.cuda.synchronize()
        for _ in range(times):
            start = time.perf_counter()
            result = call()
            found.append((time.perf_counter() - start) * 1e6)
            del result
        torch.cuda.synchronize()
        return found

    def count(self, call: Call) -> Counts:
        """Peak memory of one call, launches and busy time of another."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities, acc_events=True) as profile:
            call()
            torch.cuda.synchronize()
        kernels = [
            event
            for event in profile.events() or ()
            if event.device_type.name == "CUDA" and not event.name.startswith(("Memcpy", "Memset"))
        ]
        if not kernels:
            return Counts(peak_bytes=peak)
        busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e3
        return Counts(len(kernels), busy, peak)

    def clear(self) -> None:
        """Empty the allocator's cache."""
        torch.cuda.empty_cache()


def find_machine() -> Machine:
    """The current CUDA device, else the CPU."""
    if torch.cuda.is_available():
        return CudaMachine(torch.device("cuda", torch.cuda.current_device()))
    return CpuMachine()
