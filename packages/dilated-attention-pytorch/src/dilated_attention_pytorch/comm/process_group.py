"""A rank of a torch.distributed process group (Gloo or NCCL)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import PeerError
from .base import RankTask, Work, note_sends

T = TypeVar("T")

# Gloo matches by tag; NCCL has none and matches by the order of posting.
_TAGS = {"key_value": 1, "key_mask": 2, "gradient": 3, "query": 4, "partial": 5, "result": 6}


class _GroupWork:
    def __init__(self, label: str, peers: Sequence[int], works: Sequence[dist.Work]) -> None:
        self._label, self._peers, self._works = label, peers, works

    def ready(self) -> bool:
        return True

    def wait(self) -> None:
        for work in self._works:
            try:
                work.wait()
            except RuntimeError as error:
                raise PeerError(
                    f"the exchange of {self._label} rows with ranks {sorted(set(self._peers))} of "
                    f"the ring failed; one of them raised, died or is late: {error}"
                ) from error


class ProcessGroupCommunicator:
    """This process's end of a ring over a process group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._rank = dist.get_rank(group)
        self._size = dist.get_world_size(group)

    @property
    def name(self) -> str:
        """The group's name, equal on its members."""
        return str(self._group.group_name)

    @property
    def rank(self) -> int:
        """This process's rank in the group."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of ranks in the group."""
        return self._size

    def exchange(
        self,
        label: str,
        sends: Sequence[tuple[int, Tensor]],
        receives: Sequence[tuple[int, Tensor]],
    ) -> Work:
        """Post all sends and receives as one batch of point-to-point operations."""
        note_sends(label, self._rank, sends)
        operations = [
            dist.P2POp(kind, tensor, group=self._group, tag=_TAGS[label], group_peer=peer)
            for kind, pairs in ((dist.isend, sends), (dist.irecv, receives))
            for peer, tensor in pairs
        ]
        peers = [peer for peer, _ in (*sends, *receives)]
        try:
            works = dist.batch_isend_irecv(operations) if operations else []
        except RuntimeError as error:
            raise PeerError(
                f"cannot reach ranks {sorted(set(peers))} of the ring: {error}"
            ) from error
        return _GroupWork(label, peers, works)

    def gather_numbers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Every rank's numbers; all ranks give the same count of int64.

        Raises:
            PeerError: a rank did not answer within the group's timeout.
        """
        # NCCL moves device memory only.
        on_gpu = dist.get_backend(self._group) == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu"
        mine = torch.tensor(list(numbers), dtype=torch.int64, device=device)
        found = [torch.empty_like(mine) for _ in range(self._size)]
        try:
            dist.all_gather(found, mine, group=self._group)
        except RuntimeError as error:
            raise PeerError(
                "ranks could not agree on the call: a rank of the ring raised, died, or did not "
                f"make the same call within the group's timeout: {error}"
            ) from error
        return [row.tolist() for row in found]

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor; all have one shape and dtype."""
        found = [torch.empty_like(tensor) for _ in range(self._size)]
        dist.all_gather(found, tensor.contiguous(), group=self._group)
        return found

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of the ranks' tensors, in place."""
        dist.all_reduce(tensor, group=self._group)
        return tensor


def run_rank(task: RankTask[T]) -> T:
    """Run this process's rank to its end, blocking where it must wait."""
    while True:
        try:
            work = next(task)
        except StopIteration as stop:
            result: T = stop.value
            return result
        work.wait()
