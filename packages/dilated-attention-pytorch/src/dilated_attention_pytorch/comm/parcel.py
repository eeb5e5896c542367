"""What a transport is given: one tensor that leaves for a rank, or one that comes from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from torch import Tensor

# What travels.
LABELS: Final = ("key_value", "key_mask", "gradient", "query", "partial", "result")


@dataclass(frozen=True, eq=False, slots=True)
class Parcel:
    """One message at one of its ends.

    Args:
        label: one of `LABELS`.
        peer: the rank at the other end.
        tensor: contiguous; read where it leaves, written where it comes.
        leaves: whether this rank sends it.
        words: what it is, for errors.
    """

    label: str
    peer: int
    tensor: Tensor
    leaves: bool
    words: str


class Posted(Protocol):
    """A batch of parcels, or one of them, under way."""

    def wait(self) -> object:
        """Return, or let the current stream wait, until it is over."""
        ...


class Transport(Protocol):
    """A way between the ranks of a group.

    Parcels between two ranks match in the order of posting; those of one batch may overtake others
    of it that go elsewhere.
    """

    def post(self, parcels: Sequence[Parcel]) -> Sequence[Posted]:
        """Post a batch: one work of the whole, or one of each parcel."""
        ...
