"""What the ring asks of a transport: post an exchange, wait for it later."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from torch import Tensor

from .workspace import Workspace

T = TypeVar("T")


class Work(Protocol):
    """A posted exchange."""

    def ready(self) -> bool:
        """Whether `wait` would return at once (a blocking transport may always say True)."""
        ...

    def wait(self) -> None:
        """Return when the receive buffers hold the data and the send buffers may be reused."""
        ...


class Communicator(Protocol):
    """One rank's end of a ring of `size` ranks.

    Exchanges between two ranks match in the order in which they are posted; every rank posts
    before it waits, so the ring cannot deadlock.
    """

    @property
    def rank(self) -> int:
        """This rank, 0 <= rank < size."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def workspace(self) -> Workspace:
        """Where buffers for what is sent and received come from."""
        ...

    def exchange(
        self,
        label: str,
        sends: Sequence[tuple[int, Tensor]],
        receives: Sequence[tuple[int, Tensor]],
    ) -> Work:
        """Post sends to and receives from other ranks, as (rank, contiguous tensor) pairs.

        All of one exchange travels at the same time.
        """
        ...


# A rank is a coroutine that yields each exchange it must wait for and returns its result, so
# that one process can run R of them and a real rank can run one, by the same code.
RankTask: TypeAlias = Generator[Work, None, T]


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message as recorded on its sender."""

    label: str
    source: int
    target: int
    nbytes: int


_recordings: list[list[SentMessage]] = []


@contextmanager
def record_messages() -> Iterator[list[SentMessage]]:
    """Collect every message that ranks in this process send, in order of posting."""
    messages: list[SentMessage] = []
    _recordings.append(messages)
    try:
        yield messages
    finally:
        # By identity: two recordings that began together hold equal lists.
        _recordings[:] = [x for x in _recordings if x is not messages]


def note_sends(label: str, source: int, sends: Sequence[tuple[int, Tensor]]) -> None:
    """Tell active recordings of these sends."""
    for messages in _recordings:
        messages.extend(
            SentMessage(label, source, target, tensor.numel() * tensor.element_size())
            for target, tensor in sends
        )
