"""Prov-GigaPath's slide encoder over a ring: time, memory per rank, and the embeddings of one rank.

`torchrun --nproc-per-node 2 -m benchmarks.gigapath_ring OUT.json` runs on the GPUs, else on the CPU
over Gloo. Weights, input and shape are those of `benchmarks.gigapath`. Every rank passes the same
slides and holds 1/R of the rows in the layers; gradients are averaged by `DistributedDataParallel`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.integrations import SlideEncoder

from .gigapath import DTYPES, fine_tune, forward, tiles


def _timed(call: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """The slowest rank's median, and the fullest rank's peak. Every rank repeats as often."""
    call()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    samples = []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize(device)
        samples.append((time.perf_counter() - start) * 1e3)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else 0.0
    worst = torch.tensor([statistics.median(samples), peak], dtype=torch.float64, device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    found = {"ms": round(float(worst[0]), 4)}
    return found | {"peak_mib": round(float(worst[1]), 1)} if on_gpu else found


def measure(n: int, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Figures of both operators at one length."""
    x, coords = tiles(n, arguments, device)
    results: dict[str, Any] = {}
    for name in ("compatible", "exact"):
        torch.manual_seed(0)
        options: dict[str, Any] = {"dropout": 0.0, "drop_path_rate": 0.0, "exact": name == "exact"}
        sizes = {"depth": arguments.layers, **options}
        dtype = DTYPES[arguments.dtype]
        encoder = SlideEncoder(**sizes, group=dist.group.WORLD).to(device, dtype)
        head = nn.Linear(768, 2).to(device, dtype)
        entry: dict[str, Any] = {"note": f"ring of {dist.get_world_size()}, worst rank"}
        if arguments.check:
            alone = SlideEncoder(**sizes).to(device, dtype)
            alone.load_state_dict(encoder.state_dict())
            found, expected = (forward(model, x, coords).float() for model in (encoder, alone))
            entry["apart"] = {
                "largest": float((found - expected).abs().max()),
                "size": float(expected.abs().max()),
            }
            del alone
        trained = nn.parallel.DistributedDataParallel(encoder)
        calls = {
            "forward": partial(forward, encoder, x, coords),
            "fine_tuning": partial(fine_tune, trained, head, x, coords),
        }
        entry |= {key: _timed(call, arguments.repeats, device) for key, call in calls.items()}
        results[f"{name}, R = {dist.get_world_size()}"] = entry
    return {"n": n, "implementations": results}


def main() -> None:
    """Measure; the first rank writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--length", type=int, action="append", help="class token included")
    parser.add_argument("--dtype", choices=DTYPES, help="float16 on CUDA, float32 on a CPU")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="not beside one rank"
    )
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    arguments.dtype = arguments.dtype or ("float16" if on_gpu else "float32")
    report: dict[str, Any] = {
        "environment": environment(device),
        "case": {name: getattr(arguments, name) for name in ("dtype", "batch", "layers")},
        "results": [],
    }
    for n in arguments.length or ([10_001, 45_681, 70_001] if on_gpu else [1025]):
        report["results"].append(measure(n, arguments, device))
        if dist.get_rank() == 0:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(report["results"][-1]), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
