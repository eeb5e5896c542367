"""Gloo processes for tests: a pool that lives as long as the run, and short-lived sets that die."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TIMEOUT = 60.0

# One interpreter imports torch; the ranks are its children and start in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.gloo_programs"])


@dataclass(frozen=True)
class Member:
    """A rank's place in a ring."""

    rank: int
    size: int
    group: ProcessGroup


@dataclass(frozen=True)
class Failure:
    """An exception of a rank: names of its class and bases, message, traceback."""

    kinds: tuple[str, ...]
    message: str
    trace: str


Program = Callable[..., Any]


class GlooPool:
    """`size` processes with one Gloo group for each ring size 1..`size`."""

    def __init__(self, size: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        store = str(Path(self._folder.name) / "store")
        self._ends: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for rank in range(size):
            process, end = _start(_serve, rank, size, store)
            self._processes.append(process)
            self._ends.append(end)

    def __enter__(self) -> GlooPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in self._ends:
            with contextlib.suppress(BrokenPipeError):
                end.send(None)
        for process in self._processes:
            process.join(5)
            process.kill()
            process.join()
        self._folder.cleanup()

    def outcomes(
        self, size: int, program: Program, *arguments: Any, fresh: float | None = None
    ) -> list[Any]:
        """What `program(member, ...)` returned on ranks 0..size-1, a `Failure` where it raised.

        With `fresh` they run on a new group with that timeout: calls on it are counted from 1.
        """
        for end in self._ends:
            end.send((size, fresh, program, arguments))
        found = []
        for rank, end in enumerate(self._ends):
            if not end.poll(2 * TIMEOUT):
                raise TimeoutError(f"rank {rank} did not answer")
            found.append(end.recv())
        return found[:size]

    def run(self, size: int, program: Program, *arguments: Any) -> list[Any]:
        """As `outcomes`, where no rank may fail."""
        found = self.outcomes(size, program, *arguments)
        for rank, outcome in enumerate(found):
            if isinstance(outcome, Failure):
                raise AssertionError(f"rank {rank} of {size} failed:\n{outcome.trace}")
        return found


def _start(target: Program, *arguments: Any) -> tuple[BaseProcess, Connection]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _attempt(program: Program, *arguments: Any) -> Any:
    try:
        return program(*arguments)
    except Exception as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__)
        return Failure(kinds, str(error), traceback.format_exc())


def _join(rank: int, size: int, store: str, seconds: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )


def _serve(end: Connection, rank: int, size: int, store: str) -> None:
    _join(rank, size, store, TIMEOUT)
    groups = [dist.new_group(list(range(ring))) for ring in range(1, size + 1)]
    while (task := end.recv()) is not None:
        ring, fresh, program, arguments = task
        group = groups[ring - 1]
        if fresh is not None:
            # Every process of the job takes part in making a group.
            group = dist.new_group(list(range(ring)), timeout=timedelta(seconds=fresh))
        member = Member(rank, ring, group)
        end.send(_attempt(program, member, *arguments) if rank < ring else None)
    dist.destroy_process_group()


def _live_once(
    end: Connection,
    rank: int,
    size: int,
    store: str,
    seconds: float,
    program: Program,
    arguments: tuple[Any, ...],
) -> None:
    _join(rank, size, store, seconds)
    assert dist.group.WORLD is not None
    started = time.monotonic()
    outcome = _attempt(program, Member(rank, size, dist.group.WORLD), *arguments)
    end.send((outcome, time.monotonic() - started))


@dataclass(frozen=True)
class Ended:
    """How a rank of a short-lived set ended."""

    outcome: Any
    seconds: float


def run_mortal(
    size: int, seconds: float, survivors: tuple[int, ...], program: Program, *arguments: Any
) -> dict[int, Ended]:
    """Run `program` once on `size` new ranks, whose group times out after `seconds`.

    Returns:
        For each rank that answered how it ended. Ranks other than `survivors` are not waited for;
        a survivor that hangs is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        started = [
            _start(_live_once, rank, size, store, seconds, program, arguments)
            for rank in range(size)
        ]
        deadline = time.monotonic() + 3 * seconds + 20
        found: dict[int, Ended] = {}
        try:
            for rank in (*survivors, *sorted(set(range(size)) - set(survivors))):
                process, end = started[rank]
                if rank in survivors:
                    wait([end, process.sentinel], max(0.0, deadline - time.monotonic()))
                with contextlib.suppress(EOFError):
                    if end.poll():
                        found[rank] = Ended(*end.recv())
        finally:
            for process, end in started:
                process.kill()
                process.join()
                end.close()
    return found
