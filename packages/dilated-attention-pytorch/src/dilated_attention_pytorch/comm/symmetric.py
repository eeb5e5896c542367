"""Symmetric memory: a receiver's copy engine pulls rows out of memory that its peer has mapped.

No multiprocessor moves rows, so kernels that run meanwhile lose none. `slots` says what goes where.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import torch
from torch import Tensor

from .member import Member
from .parcel import Parcel
from .slots import CHANNELS, Slots, Step

_SIGNAL_BYTES: Final = 4


class Pull:
    """A batch under way.

    Holds its tensors until it is over, or the stream that it was posted on waits for it: then what
    that stream does to them comes later.
    """

    def __init__(self, parcels: Sequence[Parcel], streams: Sequence[torch.cuda.Stream]) -> None:
        self._held: Sequence[Parcel] = parcels
        self._events = [stream.record_event() for stream in streams]
        self._posted_on = torch.cuda.current_stream()

    def wait(self) -> None:
        """Let the current stream wait."""
        stream = torch.cuda.current_stream()
        for event in self._events:
            stream.wait_event(event)
        if stream == self._posted_on:
            self._held = ()

    def is_completed(self) -> bool:
        """Whether all was copied; not after a failure of the device, which its host is told of."""
        try:
            return all(event.query() for event in self._events)
        except RuntimeError:
            return False


class SymmetricMemory:
    """One rank's slots and its view of those of its peers; making one is a collective operation.

    Args:
        member: this process; after its timeout a signal that does not come ends the work of the
            device with an error.

    Raises:
        RuntimeError: the ranks cannot map each other's memory.
    """

    def __init__(self, member: Member) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory
        from torch._C._distributed_c10d import _SymmetricMemory

        size, device = member.size, member.device
        self._slots, self.device = Slots(member.rank, size), device
        self._timeout_ms = round(1e3 * member.timeout)
        # An allocation of its own: offsets of suballocations need not agree between ranks.
        self._own = _SymmetricMemory.empty_strided_p2p(
            (self._slots.nbytes,), (1,), torch.uint8, device
        )
        self._handle: Any = symmetric_memory.rendezvous(self._own, member.group)
        if _SIGNAL_BYTES * CHANNELS * size > self._handle.signal_pad_size:
            raise RuntimeError(
                f"the signals of {size} ranks need {_SIGNAL_BYTES * CHANNELS * size} bytes, "
                f"PyTorch's signal pads have {self._handle.signal_pad_size}"
            )
        # Signals are tiny kernels: they go first where others fill the multiprocessors.
        self._push, self._pull = (torch.cuda.Stream(device, priority=-1) for _ in range(2))
        self._flying: list[Pull] = []

    def post(self, parcels: Sequence[Parcel]) -> Sequence[Pull]:
        """Post a batch; one work of the whole."""
        assert all(x.tensor.device == self.device for x in parcels), "the group's device"
        self._flying = [one for one in self._flying if not one.is_completed()]
        # What leaves is ready then, and what comes may be written.
        ready = torch.cuda.current_stream(self.device).record_event()
        for stream in (self._push, self._pull):
            stream.wait_event(ready)
        flat = [x.tensor.view(-1).view(torch.uint8) for x in parcels]
        steps = self._slots.steps([(x.peer, x.tensor.nbytes, x.leaves) for x in parcels])
        for leaves, some in groupby(steps, lambda step: step.leaves):
            with torch.cuda.stream(self._push if leaves else self._pull):
                for step in some:
                    move = self._send if leaves else self._take
                    move(step, flat[step.parcel][step.begin : step.end])
        work = Pull(parcels, (self._push, self._pull))
        self._flying.append(work)
        return [work]

    def _send(self, step: Step, piece: Tensor) -> None:
        if step.reused:
            self._handle.wait_signal(step.peer, step.taken, self._timeout_ms)
        self._own[step.at : step.at + piece.numel()].copy_(piece)
        self._handle.put_signal(step.peer, step.full, self._timeout_ms)

    def _take(self, step: Step, piece: Tensor) -> None:
        self._handle.wait_signal(step.peer, step.full, self._timeout_ms)
        piece.copy_(self._handle.get_buffer(step.peer, (piece.numel(),), torch.uint8, step.at))
        self._handle.put_signal(step.peer, step.taken, self._timeout_ms)
