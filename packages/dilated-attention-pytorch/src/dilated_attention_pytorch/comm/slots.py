"""Who writes and reads which part of symmetric memory, and which signals keep them apart.

Each rank owns two slots for every other rank. A message is cut into pieces that fit a slot; the
m-th piece from one rank to another goes through slot m mod 2 of that pair:

    sender:    wait for "taken" of piece m - 2; copy piece m into the slot; signal "full"
    receiver:  wait for "full"; copy piece m out of the slot; signal "taken"

Both count the pieces between them alike, so they agree on slots without talking. A rank's pieces
leave on one stream and come on another, each in order. Nothing waits for what is posted later, so
ranks that post their exchanges in one order cannot deadlock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

# A rank's slots together, whatever the size of the ring.
BUFFER_BYTES: Final = 64 << 20
_ALIGNMENT: Final = 512
_SLOTS: Final = 2
# Of signals between a pair: one for each slot that is full, and one for each that was taken.
CHANNELS: Final = 2 * _SLOTS


@dataclass(frozen=True, slots=True)
class Step:
    """One piece, as one of its two ends sees it.

    Args:
        parcel: number of the message in its batch.
        peer: the rank at the other end.
        leaves: whether this rank is the sender.
        begin: first byte of the message.
        end: behind its last byte.
        at: where in the sender's memory it goes.
        full: channel of the signal from the sender to the receiver.
        taken: channel of the signal from the receiver to the sender.
        reused: whether the slot was used before, so that the sender waits until it was taken.
    """

    parcel: int
    peer: int
    leaves: bool
    begin: int
    end: int
    at: int
    full: int
    taken: int
    reused: bool


class Slots:
    """One rank's count of the pieces that it exchanged with every other.

    Args:
        rank: this rank.
        size: number of ranks.
        total: bytes of a rank's slots together.
    """

    def __init__(self, rank: int, size: int, total: int = BUFFER_BYTES) -> None:
        self._rank, self._size = rank, size
        self.slot_bytes = total // (_SLOTS * (size - 1)) // _ALIGNMENT * _ALIGNMENT
        self._counts: Counter[tuple[int, bool]] = Counter()

    @property
    def nbytes(self) -> int:
        """Bytes of a rank's slots."""
        return _SLOTS * (self._size - 1) * self.slot_bytes

    def steps(self, batch: Sequence[tuple[int, int, bool]]) -> Iterator[Step]:
        """The pieces of a batch, in the order in which each stream moves them.

        In turns: one piece of every message that leaves, then one of every message that comes.

        Args:
            batch: (peer, bytes, whether it leaves) of each message; between two ranks in the order
                that both know.
        """
        most = max((nbytes for _, nbytes, _ in batch), default=0)
        for begin in range(0, max(1, most), self.slot_bytes):
            for wanted in (True, False):
                for parcel, (peer, nbytes, leaves) in enumerate(batch):
                    # A message of no bytes has one piece of none.
                    if leaves == wanted and begin < max(1, nbytes):
                        end = min(begin + self.slot_bytes, nbytes)
                        yield self._step(parcel, peer, leaves, begin, end)

    def _step(self, parcel: int, peer: int, leaves: bool, begin: int, end: int) -> Step:
        number = self._counts[peer, leaves]
        self._counts[peer, leaves] += 1
        sender, receiver = (self._rank, peer) if leaves else (peer, self._rank)
        place, slot = (receiver - sender) % self._size - 1, number % _SLOTS
        at = (_SLOTS * place + slot) * self.slot_bytes
        return Step(parcel, peer, leaves, begin, end, at, slot, _SLOTS + slot, number >= _SLOTS)
