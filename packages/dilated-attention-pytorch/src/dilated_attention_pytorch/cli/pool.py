"""Processes that hold a ring, started once and given one program after another."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, cast

from .rank import Message, Rank, Start, rank_main

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class RankFailedError(RuntimeError):
    """A rank raised or died; the message holds its traceback or the last lines of its log."""


class RankPool:
    """R processes on this machine, over NCCL where it has as many GPUs, else over Gloo.

    A context manager; `start` starts them. Leaving it ends every process, however it is left; and
    a process whose parent is gone ends itself. Ctrl-C reaches the parent alone, so that one
    process reports it. A signal that comes while processes start waits until the pool knows them.

    Args:
        size: Number of processes.
        ring_sizes: Sizes of the rings that programs run on; the first processes form them.
        folder: An empty folder for the rendezvous and the processes' logs.
    """

    def __init__(self, size: int, ring_sizes: Sequence[int], folder: Path) -> None:
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._start = Start(size, tuple(ring_sizes), folder)

    def __enter__(self) -> Self:
        return self

    @property
    def backend(self) -> str:
        """What the ring talks over, `nccl` or `gloo`."""
        return self._start.backend

    def start(self) -> None:
        """Start the processes, and return when all have joined the ring.

        Raises:
            RankFailedError: A process could not join.
        """
        context = multiprocessing.get_context("spawn")
        # Starting the tracker changes the signal mask, so it is done before the mask is set.
        resource_tracker.ensure_running()
        with _signals_wait():
            mask = _block_interrupts()
            try:
                for rank in range(self._start.size):
                    self._add(context, rank)
            finally:
                _restore_interrupts(mask)
        self._results(range(self._start.size), None)

    def _add(self, context: SpawnContext, rank: int) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=rank_main, args=(rank, self._start, theirs), daemon=True)
        process.start()
        theirs.close()
        self._connections.append(ours)
        self._processes.append(process)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for end in self._connections:
            end.close()

    def run(
        self,
        program: Callable[[Rank, *Arguments], T],
        ring_size: int,
        *arguments: *Arguments,
        on_report: Callable[[Any], None] | None = None,
    ) -> list[T]:
        """Run a program on the first `ring_size` processes.

        Args:
            program: A function of a module; gets the process's `Rank` first.
            ring_size: One of the pool's ring sizes.
            *arguments: For the program.
            on_report: Called with what the first rank reports on the way.

        Returns:
            What each rank returned.

        Raises:
            RankFailedError: A rank raised or died.
        """
        assert ring_size in self._start.ring_sizes
        for end in self._connections[:ring_size]:
            end.send((program, ring_size, arguments))
        return self._results(range(ring_size), on_report)

    def _results(self, ranks: range, on_report: Callable[[Any], None] | None) -> list[Any]:
        """What each of these ranks answers."""
        waiting = {self._connections[rank]: rank for rank in ranks}
        results: dict[int, Any] = {}
        while waiting:
            for ready in connection.wait(list(waiting)):
                end = cast("Connection", ready)
                rank = waiting[end]
                message = self._receive(end, rank)
                if message.kind == "report":
                    if on_report is not None:
                        on_report(message.value)
                elif message.kind == "result":
                    results[rank] = message.value
                    del waiting[end]
                else:
                    raise RankFailedError(f"rank {rank} raised:\n{message.value}")
        return [results[rank] for rank in ranks]

    def _receive(self, end: Connection, rank: int) -> Message:
        try:
            message: Message = end.recv()
        except (EOFError, ConnectionResetError) as error:
            self._processes[rank].join(5)
            log = self._start.log(rank)
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            raise RankFailedError(
                f"rank {rank} died with exit code {self._processes[rank].exitcode}\n"
                + "\n".join(lines[-20:])
            ) from error
        return message


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block.

    One that came between a process's start and its instructions would leave it waiting for them.
    Holding them back by a mask is not enough: a signal goes to any thread that does not mask it.
    """
    if threading.current_thread() is not threading.main_thread():
        # Handlers run in the main thread, and cannot interrupt this one.
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {x: signal.signal(x, lambda number, frame: came.append(number)) for x in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


def _block_interrupts() -> set[signal.Signals] | None:
    """Mask Ctrl-C while processes start; they inherit the mask and never see it."""
    if sys.platform == "win32":
        return None
    return {signal.Signals(x) for x in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})}


def _restore_interrupts(mask: set[signal.Signals] | None) -> None:
    if sys.platform != "win32" and mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
