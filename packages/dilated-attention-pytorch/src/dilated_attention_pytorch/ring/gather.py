"""All ranks' rows on every rank: each rank sends its own chunk to each other once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..comm import Communicator, RankTask, Work
from ..layout import Layout
from .indexing import rank_rows
from .trade import Blocks, trade


def gather_rows(
    layout: Layout, chunks: Sequence[Tensor], comm: Communicator, label: str
) -> RankTask[list[Tensor]]:
    """Global tensors from every rank's chunks, which have the rank's rows on dim 1.

    Args:
        layout: who holds which rows.
        chunks: this rank's rows of each tensor, (b, n_rank, ...).
        comm: this rank's end of the ring.
        label: name of the message kind.

    Returns:
        For each chunk the tensor (b, n, ...) in global order.
    """
    rank, size = comm.rank, comm.size
    whole = [chunk.new_empty((chunk.shape[0], layout.n, *chunk.shape[2:])) for chunk in chunks]

    def place(owner: int, found: Sequence[Tensor]) -> None:
        rows = rank_rows(layout, owner, whole[0].device)
        for target, chunk in zip(whole, found, strict=True):
            target[:, rows] = chunk

    place(rank, chunks)
    sent = [chunk if chunk.is_contiguous() else _packed(chunk, comm) for chunk in chunks]
    for step in range(1, size):
        target, source = (rank + step) % size, (rank - step) % size
        length = layout.lengths[source]
        found = [Blocks([(c.shape[0], length, *c.shape[2:])], c, comm).views[0] for c in chunks]
        works: list[Work] = []
        for chunk, buffer in zip(sent, found, strict=True):
            works += trade(label, target, chunk, source, buffer, comm)
        yield from works
        place(source, found)
        # Before the next step's buffers are made.
        del found, buffer
    return whole


def _packed(chunk: Tensor, comm: Communicator) -> Tensor:
    return Blocks([chunk.shape], chunk, comm).views[0].copy_(chunk)
