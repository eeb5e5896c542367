"""A rank of a torch.distributed process group (Gloo or NCCL)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import PeerError
from .base import RankTask, Work, note_sends
from .monitor import MONITOR
from .progress import Progress

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

# Gloo matches by tag; NCCL has none and matches by the order of posting.
_TAGS = {"key_value": 1, "key_mask": 2, "gradient": 3, "query": 4, "partial": 5, "result": 6}


def _uncompiled(function: Function) -> Function:
    """Left out of torch.compile's graphs: it can trace neither a group's store nor its errors."""
    found: Function = torch.compiler.disable(function, reason="ranks talk from Python")
    return found


@contextmanager
def _peer_errors(words: str, progress: Progress) -> Iterator[None]:
    """PeerError for what a transport raises: this rank's step, the peer, where the others are."""
    try:
        yield
    except RuntimeError as error:
        others = progress.others()
        progress.lost(words)
        raise PeerError(
            f"rank {progress.rank}, step {progress.step}: failed in {words}; a rank of the ring "
            f"raised, died or is late{others}: {error}"
        ) from error


class _GroupWork:
    """Works of one exchange, each with what it waits for."""

    def __init__(self, works: Sequence[tuple[str, dist.Work]], progress: Progress) -> None:
        self._works, self._progress = works, progress

    def ready(self) -> bool:
        return True

    def wait(self) -> None:
        # A work holds its buffer, and whoever waited may hold this for longer.
        works, self._works = self._works, ()
        for words, work in works:
            with _peer_errors(words, self._progress):
                work.wait()


class ProcessGroupCommunicator:
    """This process's end of a ring over a process group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._rank = dist.get_rank(group)
        self._size = dist.get_world_size(group)
        self._progress = Progress(group, self._rank, self._size)
        self._on_gpu = dist.get_backend(group) == "nccl"
        self._exchanges = 0

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
        self._exchanges += 1
        operations, words = [], []
        for kind, way, pairs in (
            (dist.isend, "to", sends),
            (dist.irecv, "from", receives),
        ):
            for peer, tensor in pairs:
                operations.append(
                    dist.P2POp(kind, tensor, group=self._group, tag=_TAGS[label], group_peer=peer)
                )
                words.append(f"exchange {self._exchanges}: {label} rows {way} rank {peer}")
        together = " and ".join(words)
        with _peer_errors(together, self._progress):
            works = dist.batch_isend_irecv(operations) if operations else []
        if self._on_gpu and works:
            MONITOR.watch(together, works, self._progress)
        # NCCL makes one work of a batch, Gloo one of each operation.
        named = words if len(works) == len(words) else [together] * len(works)
        return _GroupWork(list(zip(named, works, strict=True)), self._progress)

    @_uncompiled
    def gather_numbers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Begin a step: every rank's numbers; all ranks give the same count of int64.

        Raises:
            PeerError: a rank did not answer within the group's timeout.
        """
        # NCCL moves device memory only.
        device = torch.device("cuda", torch.cuda.current_device()) if self._on_gpu else "cpu"
        mine = torch.tensor(list(numbers), dtype=torch.int64, device=device)
        self._exchanges = 0
        words = "agreeing on the call with all ranks"
        with _peer_errors(words, self._progress):
            self._progress.enter()
            found = self._gather(mine, words)
            # Reading them is where a GPU's host waits.
            return [row.tolist() for row in found]

    @_uncompiled
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor; all have one shape and dtype.

        Raises:
            PeerError: a rank did not answer within the group's timeout.
        """
        words = "gathering the rows of all ranks"
        with _peer_errors(words, self._progress):
            return self._gather(tensor.contiguous(), words)

    def _gather(self, mine: Tensor, words: str) -> list[Tensor]:
        found = [torch.empty_like(mine) for _ in range(self._size)]
        self._finish(dist.all_gather(found, mine, group=self._group, async_op=True), words)
        return found

    @_uncompiled
    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of the ranks' tensors, in place.

        Raises:
            PeerError: a rank did not answer within the group's timeout.
        """
        words = "summing over all ranks"
        with _peer_errors(words, self._progress):
            self._finish(dist.all_reduce(tensor, group=self._group, async_op=True), words)
        return tensor

    def _finish(self, work: dist.Work | None, words: str) -> None:
        assert work is not None, "this rank is a member of the group"
        if self._on_gpu:
            MONITOR.watch(words, [work], self._progress)
        work.wait()

    def run(self, task: RankTask[T]) -> T:
        """Run this process's rank to its end, blocking where it must wait.

        An error of its own is posted before it is raised: the others wait for rows that never come.
        """
        try:
            while True:
                try:
                    work = next(task)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                work.wait()
        except PeerError:
            raise
        except Exception as error:
            self._progress.lost(f"{type(error).__name__}: {error}")
            raise
