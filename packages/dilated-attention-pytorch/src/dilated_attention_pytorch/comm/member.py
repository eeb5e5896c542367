"""A process as a member of the group that it makes transports with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """This process in a ring over an NCCL group.

    Args:
        group: the ring.
        rank: this process's rank in it.
        size: number of ranks.
        device: its GPU.
        timeout: seconds that the group waits for a rank.
        gather: every rank's tensor, on every rank; collective.
    """

    group: dist.ProcessGroup
    rank: int
    size: int
    device: torch.device
    timeout: float
    gather: Callable[[Tensor], list[Tensor]]
