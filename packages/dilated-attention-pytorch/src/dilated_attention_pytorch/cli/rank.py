"""One process of a `RankPool`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

_TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Start:
    """What every process of a pool is started with."""

    size: int
    ring_sizes: tuple[int, ...]
    folder: Path

    @property
    def backend(self) -> str:
        """NCCL where this machine has a GPU for each process, else Gloo."""
        return "nccl" if torch.cuda.device_count() >= self.size else "gloo"

    def log(self, rank: int) -> Path:
        """The file that holds all that a process prints."""
        return self.folder / f"rank{rank}.log"


@dataclass(frozen=True, slots=True)
class Message:
    """What a process tells its parent."""

    kind: Literal["report", "result", "error"]
    value: Any


@dataclass(frozen=True, slots=True)
class Rank:
    """What a program knows of the process that it runs in.

    Args:
        group: The ring of this run.
        device: Where this rank's tensors live.
        report: Tells the parent something on the way; of the first rank only.
    """

    group: dist.ProcessGroup
    device: torch.device
    report: Callable[[Any], None]

    @property
    def index(self) -> int:
        """This rank's number in the ring."""
        return dist.get_rank(self.group)

    @property
    def ring_size(self) -> int:
        """R."""
        return dist.get_world_size(self.group)


def rank_main(rank: int, start: Start, parent: Connection) -> None:
    """The life of a process: join the ring, say so, then run what the parent sends until killed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _print_to(start.log(rank))
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if start.backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            start.backend,
            store=FileStore(str(start.folder / "rendezvous"), start.size),
            rank=rank,
            world_size=start.size,
            timeout=_TIMEOUT,
        )
        groups = {size: dist.new_group(range(size)) for size in start.ring_sizes}
        parent.send(Message("result", None))
        while True:
            program, ring_size, arguments = parent.recv()

            def report(value: Any) -> None:
                if rank == 0:
                    parent.send(Message("report", value))

            here = Rank(groups[ring_size], device, report)
            parent.send(Message("result", program(here, *arguments)))
    except Exception:
        parent.send(Message("error", traceback.format_exc()))


def _die_with_parent() -> None:
    """End this process at once when its parent ends, whatever ended it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _print_to(path: Path) -> None:
    """Send all output of this process, that of libraries included, to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(file, output)
    os.close(file)
