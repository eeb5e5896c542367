"""Weak and strong scaling of the ring on the GPUs of this machine, or on CPU processes.

`python -m benchmarks.scaling` starts a process for each GPU, runs rings of 1, 2, 4, ... of them and
adds to benchmarks/results/scaling.json; `python -m benchmarks.page` shows it. With
`torchrun --nproc-per-node N -m benchmarks.scaling` each of its processes is a rank. `--small`
runs tiny shapes over Gloo, to see that the suite works: its times say nothing, and it needs OUT.

Every figure is gated: sampled rows of out, lse, dq, dk and dv agree with the definition in float64,
and every rank sent as many bytes as the closed form says.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.bench.machine import CpuMachine, find_machine
from dilated_attention_pytorch.bench.report import load, merge, save
from dilated_attention_pytorch.bench.timing import QUICK, Effort

from .memory_per_rank import free_port
from .scaling_cases import FULL, KINDS, SMALL, Scaled, suite
from .scaling_run import Ring, measure

RESULT = Path(__file__).parent / "results" / "scaling.json"
CPU = torch.device("cpu")
_TIMEOUT = timedelta(minutes=10)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="the JSON file to add to")
    parser.add_argument("--small", action="store_true", help="tiny shapes, on the CPU")
    parser.add_argument("--ranks", type=int, help="processes: the GPUs; 8 with --small")
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--quick", action="store_true")
    found = parser.parse_args()
    if found.out is None:
        if found.small:
            parser.error("--small needs OUT: its figures do not belong to the committed ones")
        found.out = RESULT
    if not found.small and not torch.cuda.is_available():
        parser.error("no CUDA device is there; --small runs the suite on the CPU")
    return found


def ring_sizes(size: int) -> list[int]:
    """1, 2, 4, ... up to the number of ranks."""
    return [1 << i for i in range(size.bit_length()) if 1 << i <= size]


def _run(rank: int, size: int, arguments: argparse.Namespace) -> None:
    """Be one of the processes; the first one writes."""
    device = CPU
    if not arguments.small:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    backend = "gloo" if arguments.small else "nccl"
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=_TIMEOUT)
    # Ranks outside a ring wait for it, which may take long.
    everybody = dist.new_group(backend="gloo", timeout=timedelta(hours=3))
    rings = {}
    for ring_size in ring_sizes(size):
        members = list(range(ring_size))
        pair = [dist.new_group(members, backend=kind) for kind in (backend, "gloo")]
        rings[ring_size] = pair
    effort = QUICK if arguments.quick or arguments.small else Effort()
    kinds = arguments.kind or list(KINDS)
    for scaled in suite(list(rings), SMALL if arguments.small else FULL, kinds):
        if rank < scaled.ring_size:
            group, side = rings[scaled.ring_size]
            machine = CpuMachine() if arguments.small else find_machine()
            result = measure(scaled, Ring(group, side, machine), effort)
            if rank == 0:
                add(result, device, effort, arguments.out)
                print(_line(scaled, result), flush=True)
        dist.barrier(everybody)
    dist.destroy_process_group()


def add(result: dict[str, Any], device: torch.device, effort: Effort, out: Path) -> None:
    """Put a result into the file, beside those of the same machine and sources.

    Raises:
        ValueError: the file's figures were made in another environment.
    """
    report = {
        "environment": environment(device),
        "effort": asdict(effort),
        "results": [result],
    }
    save(merge(load(out), report) if out.exists() else report, out)


def _line(scaled: Scaled, result: dict[str, Any]) -> str:
    if "wrong" in result:
        return f"{scaled.case.name}: WRONG: {result['wrong']}"
    figures = {kind: result[kind]["ms"] for kind in ("forward", "forward_backward")}
    return f"{scaled.case.name}: {json.dumps(figures)} ms, peer {result.get('context_parallel')}"


def _spawned(rank: int, size: int, port: int, arguments: argparse.Namespace) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    _run(rank, size, arguments)


def main() -> int:
    """Run the suite; returns 1 where a result is wrong."""
    arguments = _arguments()
    if dist.is_torchelastic_launched():
        _run(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), arguments)
    else:
        size = arguments.ranks or (8 if arguments.small else torch.cuda.device_count())
        given = (size, free_port(), arguments)
        multiprocessing.spawn(_spawned, args=given, nprocs=size)  # type: ignore[no-untyped-call, attr-defined]
    return 1 if any("wrong" in result for result in load(arguments.out)["results"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
