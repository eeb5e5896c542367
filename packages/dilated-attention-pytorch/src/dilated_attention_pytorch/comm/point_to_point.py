"""Sends and receives of torch.distributed, posted as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch.distributed as dist

from .parcel import LABELS, Parcel

# Gloo matches by tag; NCCL has none and matches by the order of posting.
_TAGS: Final = {label: number for number, label in enumerate(LABELS, 1)}


class PointToPoint:
    """A batch is one group call of NCCL, whose messages it moves at once, on multiprocessors."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def post(self, parcels: Sequence[Parcel]) -> Sequence[dist.Work]:
        """Post a batch; NCCL makes one work of it, Gloo one of each parcel."""
        operations = [
            dist.P2POp(
                dist.isend if parcel.leaves else dist.irecv,
                parcel.tensor,
                group=self._group,
                tag=_TAGS[parcel.label],
                group_peer=parcel.peer,
            )
            for parcel in parcels
        ]
        works: Sequence[dist.Work] = dist.batch_isend_irecv(operations)
        return works
