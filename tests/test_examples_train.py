"""examples/train_longnet.py: stopped by SIGTERM, resumed on smaller rings, the same losses."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import train_longnet
from torch import Tensor

from dilated_attention_oracle import check

STEPS = 6
TINY = {
    "length": 48,
    "batch": 2,
    "steps": STEPS,
    "embed-dim": 16,
    "heads": 2,
    "layers": 2,
    "warmup": 2,
    "dtype": "float64",
}

# Children of an interpreter that has torch in memory start in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.gloo_programs", "examples.train_longnet"])


def rank_main(rank: int, ranks: int, port: int, arguments: list[str], stop_in: int | None) -> None:
    """A process as torchrun starts it; its last rank is told to end in the middle of a step."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    at = train_longnet.Batches.at

    def interrupted(self: Any, step: int) -> Tensor:
        if step + 1 == stop_in and rank == ranks - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        batch: Tensor = at(self, step)
        return batch

    train_longnet.Batches.at = interrupted  # type: ignore[method-assign]
    train_longnet.run(train_longnet.parse(arguments))


def launch(out: Path, ranks: int, ring: int, stop_in: int | None = None, **changes: Any) -> None:
    """Run the example on so many ranks; every one of them has to end with status 0."""
    given = TINY | changes | {"ring": ring, "out": out}
    arguments = [
        word
        for name, value in given.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = [
        _context.Process(
            target=rank_main, args=(rank, ranks, port, arguments, stop_in), daemon=True
        )
        for rank in range(ranks)
    ]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0] * ranks
    finally:
        for process in started:
            process.kill()
            process.join()


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in log(out)]


@pytest.mark.gloo
@pytest.mark.timeout(200)
def test_a_stopped_run_resumes_on_smaller_rings_with_the_same_losses(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    launch(whole, 1, 1)
    launch(stopped, 4, 4, stop_in=2)
    assert [entry["step"] for entry in log(stopped)] == [1, 2]
    launch(stopped, 2, 2, stop_in=4)
    launch(stopped, 1, 1, compare=whole)
    assert [(e["step"], e["ring"]) for e in log(stopped)] == [
        *((1, 4), (2, 4), (3, 2), (4, 2), (5, 1), (6, 1))
    ]
    checkpoints = sorted(path.name for path in stopped.glob("checkpoint-*"))
    assert checkpoints == [f"checkpoint-{step:08}" for step in (2, 4, 6)]
    reference = losses(whole)
    check("losses", losses(stopped), reference, reference, "float64")
    assert reference[-1] < reference[0]
    legend = (stopped / "loss.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in legend for name in ("whole", "R = 1", "R = 2", "R = 4"))


@pytest.mark.gloo
@pytest.mark.timeout(200)
def test_data_and_ring_dimensions_give_the_losses_of_one_process(tmp_path: Path) -> None:
    for name, ranks, ring in (("one", 1, 1), ("mesh", 4, 2)):
        launch(tmp_path / name, ranks, ring)
    reference = losses(tmp_path / "one")
    check("losses", losses(tmp_path / "mesh"), reference, reference, "float64")


@pytest.mark.gloo
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_it_runs_compiled_in_bfloat16(tmp_path: Path) -> None:
    launch(tmp_path, 2, 2, dtype="bfloat16", **{"peak-tflops": 1.0, "compile": True})
    entries = log(tmp_path)
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert all(0 < entry["mfu"] < 1 for entry in entries)
