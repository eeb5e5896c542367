"""R ranks in one process: mailboxes for a transport, coroutines for ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import PeerError
from .base import RankTask, Work, note_sends
from .workspace import Workspace

T = TypeVar("T")


class LoopbackWorld:
    """The mailboxes of `size` simulated ranks, and their buffers."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workspace = Workspace(keep=False)
        self.mail: dict[tuple[int, int], deque[tuple[str, Tensor]]] = {}

    def communicator(self, rank: int) -> LoopbackCommunicator:
        """The rank's end of the ring."""
        return LoopbackCommunicator(self, rank)


class _LoopbackWork:
    def __init__(
        self, world: LoopbackWorld, rank: int, label: str, receives: Sequence[tuple[int, Tensor]]
    ) -> None:
        self._world, self._rank, self._label, self._receives = world, rank, label, receives

    def ready(self) -> bool:
        mail = self._world.mail
        return all(mail.get((source, self._rank)) for source, _ in self._receives)

    def wait(self) -> None:
        for source, buffer in self._receives:
            label, sent = self._world.mail[(source, self._rank)].popleft()
            if label != self._label or sent.shape != buffer.shape or sent.dtype != buffer.dtype:
                raise PeerError(
                    f"rank {self._rank} expected {self._label} {tuple(buffer.shape)} "
                    f"{buffer.dtype} from rank {source}, got {label} {tuple(sent.shape)} "
                    f"{sent.dtype}"
                )
            buffer.copy_(sent)


class LoopbackCommunicator:
    """A simulated rank's end of the ring; what it sends is copied, what it receives is poisoned."""

    def __init__(self, world: LoopbackWorld, rank: int) -> None:
        self._world, self._rank = world, rank

    @property
    def rank(self) -> int:
        """This rank."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._world.size

    @property
    def workspace(self) -> Workspace:
        """Buffers of all simulated ranks, for the time of the call."""
        return self._world.workspace

    def exchange(
        self,
        label: str,
        sends: Sequence[tuple[int, Tensor]],
        receives: Sequence[tuple[int, Tensor]],
    ) -> Work:
        """Post copies into the mailboxes; buffers hold NaN until their message has arrived."""
        note_sends(label, self._rank, sends)
        for target, tensor in sends:
            box = self._world.mail.setdefault((self._rank, target), deque())
            box.append((label, tensor.clone()))
        for _, buffer in receives:
            buffer.fill_(torch.nan if buffer.is_floating_point() else 255)
        return _LoopbackWork(self._world, self._rank, label, receives)


def run_ranks(tasks: Sequence[RankTask[T]]) -> list[T]:
    """Run simulated ranks to their ends, in turns; each turn lasts until a rank must wait.

    Raises:
        PeerError: every rank waits for a message that nobody will send.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Work | None] = dict.fromkeys(range(len(tasks)))
    while waiting:
        moved = False
        for rank in list(waiting):
            work = waiting[rank]
            if work is not None:
                if not work.ready():
                    continue
                work.wait()
            moved = True
            try:
                waiting[rank] = next(tasks[rank])
            except StopIteration as stop:
                results[rank] = stop.value
                del waiting[rank]
        if not moved:
            raise PeerError(f"ranks {sorted(waiting)} wait for messages that nobody sends")
    return [results[rank] for rank in range(len(tasks))]
