"""Whether operations of a group's GPU are over, told to threads that do not ask the driver.

While a thread copies from the GPU to pageable memory (`loss.item()`) the driver may let others
wait, and who asks it about an event then waits with the interpreter's lock in hand. So the device
itself counts what is over, in memory of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .parcel import Posted


class Arrivals:
    """Operations of one group, in the order in which they were posted; lives on one device."""

    def __init__(self) -> None:
        self._posted = 0
        self._stream: torch.cuda.Stream | None = None

    def _make(self) -> torch.cuda.Stream:
        stream = torch.cuda.Stream(priority=-1)
        # Both are written in either mode.
        with torch.inference_mode(False), torch.cuda.stream(stream):
            self._count = torch.zeros(1, dtype=torch.int64, device="cuda")
            self._told = torch.zeros(1, dtype=torch.int64, pin_memory=True)
        self._number = self._told.numpy()
        return stream

    def after(self, works: Sequence[Posted]) -> Callable[[], bool]:
        """Count once the works are over; costs the current stream nothing.

        Returns:
            Whether they and all before them are; any thread may ask at any time.
        """
        if self._stream is None:
            self._stream = self._make()
        self._posted += 1
        number = self._posted
        with torch.cuda.stream(self._stream):
            for work in works:
                work.wait()
            self._count.add_(1)
            self._told.copy_(self._count, non_blocking=True)
        return lambda: int(self._number[0]) >= number
