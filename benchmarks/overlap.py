"""Whether rows travel while a rank computes: moments of the devices' streams, exchange by exchange.

`python -m benchmarks.overlap` starts a process for each GPU, runs forward + backward of the ladder
with w up to n, and writes benchmarks/results/overlap.json; with
`torchrun --nproc-per-node N -m benchmarks.overlap OUT` each of its processes is a rank. `--small`
runs a tiny case over Gloo, by the host's clock, to see that it works; it needs OUT.

Of every exchange three moments are known (`comm.times`): it was posted, the kernels that need none
of its rows had ended, and everything was there. What lies between the first two is hidden, what
lies after the second is waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from dilated_attention_pytorch import ring_dilated_attention, shard
from dilated_attention_pytorch.bench import inputs
from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.comm import Timing, record_times
from dilated_attention_pytorch.comm.times import mark
from dilated_attention_pytorch.comm.transports import AUTO, P2P, SYMMETRIC, VARIABLE
from dilated_attention_pytorch.functional import measured_links

from .memory_per_rank import free_port
from .scaling_cases import FULL, SMALL, Scaled, scaled

RESULT: Final = Path(__file__).parent / "results" / "overlap.json"
DIRECTIONS: Final = ("forward", "backward")
_TIMEOUT: Final = timedelta(minutes=5)
_WARM_UP, _STEPS = 3, 10


def line(timing: Timing, begin: Any) -> dict[str, Any]:
    """One exchange in milliseconds from the beginning of its direction of the step."""
    assert timing.needed is not None
    assert timing.arrived is not None
    posted, needed, arrived = (
        begin.elapsed_time(x) for x in (timing.posted, timing.needed, timing.arrived)
    )
    return {
        "label": timing.label,
        "received_bytes": timing.nbytes,
        "posted_ms": posted,
        "needed_ms": needed,
        "arrived_ms": arrived,
        "waited_for_ms": max(0.0, arrived - needed),
    }


def hidden_share(lines: list[dict[str, Any]]) -> float | None:
    """The part of the time under way during which the rank computed; None where none was."""
    under_way = sum(x["arrived_ms"] - x["posted_ms"] for x in lines)
    waited = sum(x["waited_for_ms"] for x in lines)
    return None if under_way <= 0 else 1 - waited / under_way


class _Step:
    """Forward and backward of one rank, and their exchanges."""

    def __init__(self, case: Scaled, group: dist.ProcessGroup, device: torch.device) -> None:
        self._case, self._group, self._device = case, group, device
        drawn = inputs.draw(case.case, device)
        own = [shard(x, group=group, order=case.order).clone() for x in (drawn.query, drawn.key)]
        rest = [shard(x, group=group, order=case.order).clone() for x in (drawn.value, drawn.dout)]
        self._leaves = [x.detach().requires_grad_() for x in (*own, rest[0])]
        self._dout = rest[1]

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
        on_gpu = self._device.type == "cuda"
        begin = mark(on_gpu=on_gpu)
        with record_times() as timings:
            result = call()
        end = mark(on_gpu=on_gpu)
        if on_gpu:
            torch.cuda.synchronize(self._device)
        lines = [line(timing, begin) for timing in timings]
        found = {
            "ms": begin.elapsed_time(end),
            "hidden_share": hidden_share(lines),
            "waited_for_ms": sum(x["waited_for_ms"] for x in lines),
            "exchanges": lines,
        }
        return result, found

    def run(self) -> dict[str, Any]:
        """Times of both directions."""

        def forward() -> Tensor:
            out: Tensor = ring_dilated_attention(
                *self._leaves,
                self._case.case.pattern,
                group=self._group,
                order=self._case.order,
                is_causal=self._case.case.is_causal,
            )
            return out

        out, first = self._timed(forward)
        _, second = self._timed(lambda: torch.autograd.grad(out, self._leaves, self._dout))
        return {"forward": first, "backward": second}


def measure(
    case: Scaled,
    group: dist.ProcessGroup,
    side: dist.ProcessGroup,
    device: torch.device,
    steps: int = _STEPS,
    warm_up: int = _WARM_UP,
) -> dict[str, Any]:
    """The step of median length of each rank, on every rank alike.

    Args:
        case: what runs.
        group: the ring.
        side: the same ranks over Gloo.
        device: of this rank.
        steps: how many are timed.
        warm_up: how many come before.
    """
    step = _Step(case, group, device)
    for _ in range(warm_up):
        step.run()
    runs = [step.run() for _ in range(steps)]
    runs.sort(key=lambda x: float(sum(x[way]["ms"] for way in DIRECTIONS)))
    mine = runs[len(runs) // 2]
    told: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(told, mine, group=side)
    shares = {
        way: statistics.median(x[way]["hidden_share"] or 0.0 for x in told) for way in DIRECTIONS
    }
    return {
        "case": case.case.name,
        "n": case.case.n,
        "ring_size": len(told),
        "order": case.order,
        "is_causal": case.case.is_causal,
        "links": str(measured_links(group)),
        "hidden_share": shares,
        "ranks": told,
    }


def _run(rank: int, size: int, arguments: argparse.Namespace) -> None:
    """Be one of the processes; the first one writes."""
    device, backend = torch.device("cpu"), "gloo"
    if not arguments.small:
        gpus = torch.cuda.device_count()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % gpus)
        torch.cuda.set_device(device)
        backend = "nccl"
    torch.set_num_threads(1)
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=_TIMEOUT)
    side = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    assert dist.group.WORLD is not None
    results = []
    for transport in (P2P,) if arguments.small else (P2P, SYMMETRIC, AUTO):
        os.environ[VARIABLE] = transport
        for is_causal in (False, True):
            sizes = SMALL if arguments.small else FULL
            case = scaled("weak", size, sizes, is_causal=is_causal)
            found = measure(case, dist.group.WORLD, side, device)
            results.append({"transport": transport, **found})
            if rank == 0:
                print(_words(results[-1]), flush=True)
                report = {"environment": environment(device), "results": results}
                arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    dist.barrier(side)
    dist.destroy_process_group()


def _words(result: dict[str, Any]) -> str:
    lines = [f"{result['case']} over {result['transport']}; links {result['links']}"]
    for rank, told in enumerate(result["ranks"]):
        for way in DIRECTIONS:
            found = told[way]
            share = found["hidden_share"]
            words = "nothing under way" if share is None else f"{share:.1%} hidden"
            lines.append(
                f"  rank {rank} {way}: {found['ms']:.2f} ms, {words}, "
                f"{found['waited_for_ms']:.3f} ms waited for"
            )
            lines += [
                f"      {x['label']:<10} {x['received_bytes']:>12,} bytes  posted "
                f"{x['posted_ms']:.3f}  needed {x['needed_ms']:.3f}  arrived {x['arrived_ms']:.3f}"
                for x in found["exchanges"]
            ]
    return "\n".join(lines)


def _spawned(rank: int, size: int, port: int, arguments: argparse.Namespace) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    _run(rank, size, arguments)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="the JSON file to write")
    parser.add_argument("--small", action="store_true", help="a tiny case, on the CPU")
    parser.add_argument("--ranks", type=int, help="processes: the GPUs; 4 with --small")
    arguments = parser.parse_args()
    if arguments.out is None:
        if arguments.small:
            parser.error("--small needs OUT: its figures do not belong to the committed ones")
        arguments.out = RESULT
    if dist.is_torchelastic_launched():
        _run(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), arguments)
        return
    size = arguments.ranks or (4 if arguments.small else torch.cuda.device_count())
    given = (size, free_port(), arguments)
    multiprocessing.spawn(_spawned, args=given, nprocs=size)  # type: ignore[no-untyped-call, attr-defined]


if __name__ == "__main__":
    main()
