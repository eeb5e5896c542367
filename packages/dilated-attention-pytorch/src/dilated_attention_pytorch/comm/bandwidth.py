"""Latency and bandwidth of a transport, measured on the ranks' own GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import torch

from ..cost import Link
from .member import Member
from .parcel import Parcel, Transport

# What a signal or a launch costs shows in the first, what a link moves in the second.
_SMALL, _LARGE = 4 << 10, 32 << 20
_REPEATS: Final = 5


def measure(transport: Transport, member: Member) -> Link:
    """A transport's latency and bandwidth while every rank sends and receives; collective.

    Returns:
        The mean of the ranks' figures, the same bits on all of them.
    """
    rank, size, device, gather = member.rank, member.size, member.device, member.gather
    sent, received = (torch.zeros(_LARGE, dtype=torch.uint8, device=device) for _ in range(2))

    def shift(step: int, nbytes: int, first: int) -> list[Parcel]:
        """A message to `rank + step`, one from `rank - step`, at a place of the buffers."""
        part = slice(first, first + nbytes)
        return [
            Parcel("key_value", (rank + step) % size, sent[part], True, "measured rows"),
            Parcel("key_value", (rank - step) % size, received[part], False, "measured rows"),
        ]

    def seconds(parcels: Sequence[Parcel]) -> float:
        found: list[float] = []
        for _ in range(_REPEATS + 1):
            # All start together.
            gather(sent[:1])
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for work in transport.post(parcels):
                work.wait()
            end.record()
            end.synchronize()
            found.append(begin.elapsed_time(end) / 1e3)
        # The first one sets up what is set up late.
        return median(found[1:])

    small, large = seconds(shift(1, _SMALL, 0)), seconds(shift(1, _LARGE, 0))
    peers = range(1, size)
    every = seconds([x for step in peers for x in shift(step, _SMALL, _SMALL * step)])
    further = (every - small) / (len(peers) - 1) if len(peers) > 1 else 0.0
    # Where the small one was as slow, all that is known is what the large one moved.
    moving = large - small if large > small else large
    mine = [small, _LARGE / moving, max(0.0, further)]
    told = gather(torch.tensor(mine, dtype=torch.float64, device=device))
    ranks = [numbers.tolist() for numbers in told]
    latency, bandwidth, message = (sum(column) / size for column in zip(*ranks, strict=True))
    return Link(latency, bandwidth, message)
