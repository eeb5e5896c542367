"""Buffers of messages that are kept from call to call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

# A buffer serves what fills at least this part of it.
_FULL: Final = 0.5
# Of what was in use at once, so much is kept.
_KEPT: Final = 2


class Workspace:
    """Buffers for the messages of one end of a ring, made once and used again.

    A buffer is free again as soon as nobody holds a tensor on its storage, so none is written while
    somebody may still read it: a transport holds what it moves until the exchange is over, and
    what a stream does later, it does after the kernels that were launched on it before. Buffers
    serve any dtype, and the stream that they were made for.

    Among the free ones the smallest that fits is taken. At most twice as much is kept as was in use
    at once, so that rows and their gradients, which are not there at the same time, both find
    theirs: beyond that a new buffer takes the place of those that have not been used for longest.

    Args:
        keep: whether buffers are kept. Over Gloo they are not: a CPU's allocator is quick, and
            what is kept is missing elsewhere.

    Attributes:
        made: how many buffers were allocated so far.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._shelves: dict[tuple[torch.device, int], _Shelf] = {}
        self.made = 0

    def empty(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A flat tensor of `count` elements of undefined content."""
        if not self._keep:
            self.made += 1
            return torch.empty(count, dtype=dtype, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        shelf = self._shelves.setdefault((device, stream), _Shelf())
        nbytes = count * dtype.itemsize
        found = shelf.take(nbytes)
        if found is None:
            self.made += 1
            found = torch.empty(nbytes, dtype=torch.uint8, device=device)
        shelf.buffers.append(found)
        # A view: a tensor of inference mode could not be written outside it.
        return found[:nbytes].view(dtype)

    def release(self) -> None:
        """Forget the buffers that nobody uses; the next call makes new ones."""
        for shelf in self._shelves.values():
            shelf.make_room(0)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, in use or not."""
        return sum(x.nbytes for shelf in self._shelves.values() for x in shelf.buffers)


@dataclass(slots=True)
class _Shelf:
    """Buffers of one stream, those used last at the end, and most bytes in use at once."""

    buffers: list[Tensor] = field(default_factory=list)
    most: int = 0

    def take(self, nbytes: int) -> Tensor | None:
        """Take out a free buffer; None, and room for a new one, where none fits."""
        free = [x for x in self.buffers if _is_free(x) and x.nbytes >= nbytes >= _FULL * x.nbytes]
        if free:
            found = min(free, key=Tensor.numel)
            self._remove(found)
            return found
        busy = sum(x.nbytes for x in self.buffers if not _is_free(x))
        self.most = max(self.most, busy + nbytes)
        self.make_room(_KEPT * self.most - nbytes)
        return None

    def make_room(self, limit: int) -> None:
        """Forget free buffers until all have at most so many bytes."""
        for one in [x for x in self.buffers if _is_free(x)]:
            if sum(x.nbytes for x in self.buffers) <= limit:
                break
            self._remove(one)

    def _remove(self, one: Tensor) -> None:
        self.buffers[:] = [x for x in self.buffers if x is not one]


def _is_free(buffer: Tensor) -> bool:
    storage = buffer.untyped_storage()
    # Held by the buffer itself and by the object made in this line.
    return torch._C._storage_Use_Count(storage._cdata) <= 2
