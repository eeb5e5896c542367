"""When exchanges were posted, when they arrived, and when somebody needed what they brought."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Mark(Protocol):
    """A moment of a device's stream, or of this process."""

    def elapsed_time(self, end: Any, /) -> float:
        """Milliseconds from this mark to a later one of the same kind."""
        ...


class HostMark:
    """Now, by the host's clock."""

    def __init__(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: HostMark) -> float:
        """Milliseconds from this mark to a later one."""
        return 1e3 * (end.seconds - self.seconds)


def mark(*, on_gpu: bool) -> Mark:
    """This moment of the current CUDA stream, or of the host."""
    if not on_gpu:
        return HostMark()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@dataclass(slots=True)
class Timing:
    """One posted exchange.

    On a GPU the first two are moments of the stream that computes and the third is one of the
    stream that moves rows; they can be compared once the device was synchronized. Over Gloo all
    are the host's, and `arrived` is when the wait was over: not later than `needed` by more than
    the wait.

    Args:
        label: what travelled.
        nbytes: received by this rank.
        posted: the rows to send were ready, and so were the buffers.
        needed: work that needs nothing of it had ended; None before.
        arrived: everything was there; None before.
    """

    label: str
    nbytes: int
    posted: Mark
    needed: Mark | None = None
    arrived: Mark | None = None


_recordings: list[list[Timing]] = []


@contextmanager
def record_times() -> Iterator[list[Timing]]:
    """Collect the times of every exchange of this process's real rings, in order of posting."""
    timings: list[Timing] = []
    _recordings.append(timings)
    try:
        yield timings
    finally:
        # By identity: two recordings that began together hold equal lists.
        _recordings[:] = [x for x in _recordings if x is not timings]


def note_post(label: str, nbytes: int, *, on_gpu: bool) -> Timing | None:
    """Tell active recordings of an exchange that is being posted; None where there are none."""
    if not _recordings:
        return None
    timing = Timing(label, nbytes, mark(on_gpu=on_gpu))
    for timings in _recordings:
        timings.append(timing)
    return timing
