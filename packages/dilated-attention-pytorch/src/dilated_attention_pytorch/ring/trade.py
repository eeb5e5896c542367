"""A message for one rank and a message from another, in buffers of the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..comm import Communicator, Work


class Blocks:
    """Blocks that travel together.

    Args:
        shapes: of the blocks, in order.
        like: has their dtype and device.
        comm: this rank's end of the ring.

    Attributes:
        flat: the message.
        views: its blocks.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], like: Tensor, comm: Communicator) -> None:
        sizes = [prod(shape) for shape in shapes]
        self.flat = comm.workspace.empty(sum(sizes), like.dtype, like.device)
        parts = self.flat.split(sizes)
        self.views: list[Tensor] = [
            part.view(*shape) for part, shape in zip(parts, shapes, strict=True)
        ]


def trade(
    label: str, target: int, out: Tensor, source: int, into: Tensor, comm: Communicator
) -> list[Work]:
    """Post one message each way, at the same time; an empty one is none."""
    sends = [(target, out)] if out.numel() else []
    receives = [(source, into)] if into.numel() else []
    return [comm.exchange(label, sends, receives)] if sends or receives else []
