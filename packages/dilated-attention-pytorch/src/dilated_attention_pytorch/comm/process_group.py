"""A rank of a torch.distributed process group (Gloo or NCCL)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..cost import Links
from ..errors import PeerError
from . import transports
from .base import RankTask, Work, note_sends
from .member import Member
from .monitor import MONITOR
from .parcel import Parcel, Posted, Transport
from .point_to_point import PointToPoint
from .progress import Progress
from .times import Timing, mark, note_post
from .workspace import Workspace

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


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
    """Works of one exchange, each with what it waits for, and the tensors that they move."""

    def __init__(
        self,
        works: Sequence[tuple[str, Posted]],
        parcels: Sequence[Parcel],
        timing: Timing | None,
        progress: Progress,
    ) -> None:
        self._works, self._parcels = works, parcels
        self._timing, self._progress = timing, progress

    def ready(self) -> bool:
        return True

    def wait(self) -> None:
        timing, self._timing = self._timing, None
        on_gpu = timing is not None and timing.arrived is not None
        if timing is not None:
            timing.needed = mark(on_gpu=on_gpu)
        # Whoever waited may hold this for longer, and need not hold the buffers.
        works, self._works = self._works, ()
        for words, work in works:
            with _peer_errors(words, self._progress):
                work.wait()
        self._parcels = ()
        if timing is not None and not on_gpu:
            timing.arrived = mark(on_gpu=False)


class ProcessGroupCommunicator:
    """This process's end of a ring over a process group.

    Communicators of one group share its buffers, its symmetric memory and what was measured.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._rank = dist.get_rank(group)
        self._size = dist.get_world_size(group)
        self._progress = Progress(group, self._rank, self._size)
        self._on_gpu = dist.get_backend(group) == "nccl"
        self._state = transports.state_of(group)
        self._p2p = PointToPoint(group)
        self._chosen: Mapping[str, str] = {}
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

    @property
    def workspace(self) -> Workspace:
        """Buffers of the group, kept from call to call."""
        return self._state.workspace

    @property
    def links(self) -> Links | None:
        """What was measured on this group; None before, and where there is nothing to choose."""
        return self._state.links

    @property
    def known(self) -> str:
        """What this rank knows of the group's transports; the ranks make sure that it is alike."""
        return str(self._state)

    @_uncompiled
    def prepare(self, device: torch.device, choice: str) -> None:
        """Get the transports ready that a choice needs; collective, and quick after the first time.

        Args:
            device: where the rank's rows live.
            choice: `auto`, `p2p` or `symmetric`, on every rank.

        Raises:
            ValueError: symmetric memory was asked for and cannot serve; on every rank. Or this
                rank's rows moved to another GPU.
            PeerError: a rank did not answer within the group's timeout.
        """
        if not self._on_gpu:
            if choice == transports.SYMMETRIC:
                raise ValueError(
                    f"{transports.VARIABLE} asks for symmetric memory, which needs a group with "
                    f"the backend nccl, got {dist.get_backend(self._group)}; unset it"
                )
            return
        if choice == transports.P2P or self._size == 1:
            return
        words = "getting the group's transports ready"
        member = Member(
            self._group,
            self._rank,
            self._size,
            device,
            self._progress.timeout,
            lambda tensor: self._gather(tensor, words),
        )
        with _peer_errors(words, self._progress):
            transports.prepare(member, self._p2p, choice)
        made = self._state.symmetric
        if made is not None and made.device != device:
            raise ValueError(
                f"rows of this group lay on {made.device} in earlier calls, and are on {device} "
                "now; keep the tensors of a rank on one device"
            )
        if choice == transports.SYMMETRIC and made is None:
            raise ValueError(
                f"{transports.VARIABLE} asks for symmetric memory, which cannot serve: "
                f"{self._state.refusal}"
            )

    def choose(self, chosen: Mapping[str, str]) -> None:
        """Set the transport of each label; `p2p` serves those that are not named."""
        self._chosen = chosen

    def exchange(
        self,
        label: str,
        sends: Sequence[tuple[int, Tensor]],
        receives: Sequence[tuple[int, Tensor]],
    ) -> Work:
        """Post all sends and receives as one batch."""
        note_sends(label, self._rank, sends)
        self._exchanges += 1
        parcels = [
            Parcel(
                label,
                peer,
                tensor,
                leaves,
                f"exchange {self._exchanges}: {label} rows {way} rank {peer}",
            )
            for leaves, way, pairs in ((True, "to", sends), (False, "from", receives))
            for peer, tensor in pairs
        ]
        timing = note_post(label, sum(x.nbytes for _, x in receives), on_gpu=self._on_gpu)
        together = " and ".join(x.words for x in parcels)
        with _peer_errors(together, self._progress):
            works = self._transport(label).post(parcels) if parcels else []
        if works:
            self._watch(together, works)
        if timing is not None and self._on_gpu:
            timing.arrived = self._arrival(works)
        # One work of the batch, or one of each parcel.
        words = [x.words for x in parcels] if len(parcels) == len(works) else [together]
        return _GroupWork(list(zip(words, works, strict=True)), parcels, timing, self._progress)

    def _watch(self, words: str, works: Sequence[Posted]) -> None:
        # Where PyTorch blocks the host it raises as well, and to wait here would be to block.
        if self._on_gpu and os.environ.get("TORCH_NCCL_BLOCKING_WAIT") != "1":
            MONITOR.watch(words, self._state.arrivals.after(works), self._progress)

    def _transport(self, label: str) -> Transport:
        if self._chosen.get(label, transports.P2P) == transports.P2P:
            return self._p2p
        assert self._state.symmetric is not None, "who chose it made it"
        return self._state.symmetric

    def _arrival(self, works: Sequence[Posted]) -> Any:
        """The moment on the device at which all is there, whatever the current stream does."""
        with torch.cuda.stream(torch.cuda.Stream()):
            for work in works:
                work.wait()
            return mark(on_gpu=True)

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
            found = torch.stack(self._gather(mine, words))
            if self._on_gpu:
                # Here a GPU's host waits; in a copy to pageable memory it would hold the driver.
                found = found.to("cpu", non_blocking=True)
                torch.cuda.current_stream().synchronize()
            rows: list[list[int]] = found.tolist()
            return rows

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
        self._watch(words, [work])
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
