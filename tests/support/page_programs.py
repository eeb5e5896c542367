"""Programs of the pages on two ranks, with what torchrun sets in their environment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import socket
import traceback
from pathlib import Path

import torch

RANKS = 2
# Children of an interpreter that has torch in memory start in milliseconds; torchrun takes seconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.gloo_programs"])


def said(program: Path, rank: int) -> Path:
    """The file that holds what a rank printed, and its traceback if it raised."""
    return program.with_suffix(f".{rank}.txt")


def _run(program: Path, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with (
        said(program, rank).open("w", encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            runpy.run_path(str(program), run_name="__main__")
        except BaseException:
            traceback.print_exc()
            raise


def run(program: Path, timeout: float = 120.0) -> list[str]:
    """Run a program on every rank; return what each printed.

    Raises:
        AssertionError: a rank did not end with status 0 in time; what it printed is in the message.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = [
        _context.Process(target=_run, args=(program, rank, port), daemon=True)
        for rank in range(RANKS)
    ]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(timeout)
        codes = [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()
            process.join()
    printed = [said(program, rank).read_text(encoding="utf-8") for rank in range(RANKS)]
    assert codes == [0] * RANKS, f"{program.name} ended with {codes}:\n" + "\n".join(printed)
    return printed
