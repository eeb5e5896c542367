"""Time every case on this machine's GPU and write JSON: `python -m benchmarks.run OUT.json`."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dilated_attention_pytorch import cost, dilated_attention
from dilated_attention_pytorch.kernels.select import Request, select
from dilated_attention_pytorch.schedule import Problem

from . import peers
from .cases import CASES, Case
from .verify import verify

SECONDS = 0.6


def _time(call: Callable[[], object]) -> dict[str, float]:
    """Median, spread (20th to 80th percentile) of the GPU's milliseconds, and peak memory."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < SECONDS and len(times) < 200):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    low, median, high = (statistics.quantiles(times, n=10)[i] for i in (1, 4, 7))
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30
    return {
        "ms": round(median, 4),
        "ms_p20": round(low, 4),
        "ms_p80": round(high, 4),
        "extra_gib": round(peak, 4),
    }


def _both(
    attend: Callable[..., Tensor], tensors: list[Tensor], dout: Tensor, *, backward: bool
) -> dict[str, Any]:
    leaves = [x.detach().requires_grad_() for x in tensors]
    with torch.no_grad():
        found: dict[str, Any] = {"forward": _time(lambda: attend(*tensors))}
    if backward:
        found["forward_backward"] = _time(
            lambda: torch.autograd.grad(attend(*leaves), leaves, dout)
        )
    return found


def _rates(found: dict[str, Any], flops: int) -> None:
    for name, share in (("forward", 1.0), ("forward_backward", 3.5)):
        if name in found:
            found[name]["tflops"] = round(flops * share / found[name]["ms"] / 1e9, 1)


def run(case: Case) -> dict[str, Any]:
    """All timings of one case, once its numbers are checked."""
    torch.manual_seed(0)
    shape = (1, case.n, case.heads, case.head_dim)
    *tensors, dout = (torch.randn(shape, dtype=case.dtype, device="cuda") for _ in range(4))
    problem = Problem(case.pattern, case.n, case.heads, case.heads, case.is_causal)
    flops = cost.attention_flops(problem, 1, case.head_dim)
    result: dict[str, Any] = {
        "case": case.name,
        "n": case.n,
        "flops_forward": flops,
        "backend": select("auto", Request(problem, case.dtype, tensors[0].device)).name,
    }

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out: Tensor = dilated_attention(query, key, value, case.pattern, is_causal=case.is_causal)
        return out

    leaves = [x.detach().requires_grad_(case.backward) for x in tensors]
    out, lse = dilated_attention(*leaves, case.pattern, is_causal=case.is_causal, return_lse=True)
    gradients = torch.autograd.grad(out, leaves, dout) if case.backward else None
    result["share_of_budget"] = verify(
        case, (*tensors, dout), out.detach(), lse.detach(), gradients
    )
    del leaves, out, lse, gradients
    result["ours"] = _both(ours, tensors, dout, backward=case.backward)
    _rates(result["ours"], flops)
    others: dict[str, Any] = {}
    if case.dense:
        others["dense_same_n"] = _both(peers.dense(case), tensors, dout, backward=case.backward)
    if case.n <= 1 << 17:
        try:
            attend = peers.torchscale(case)
            others["torchscale"] = _both(attend, tensors, dout, backward=case.backward)
            _rates(others["torchscale"], flops)
        except (ModuleNotFoundError, AssertionError) as error:
            others["torchscale"] = {"absent": str(error)}
        batch = peers.equal_flops_batch(case)
        rows = (batch, 2048, case.heads, case.head_dim)
        *same, grad = (torch.randn(rows, dtype=case.dtype, device="cuda") for _ in range(4))
        others["dense_rows_2048"] = _both(peers.dense(case), same, grad, backward=case.backward)
        _rates(others["dense_rows_2048"], flops)
    result["peers"] = others
    torch.cuda.empty_cache()
    return result


def _environment() -> dict[str, str]:
    query = "name,driver_version,power.limit,clocks.sm,clocks.max.sm"
    smi = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    import triton

    return {
        "gpu": smi.stdout.strip(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn": str(torch.backends.cudnn.version()),
        "python": platform.python_version(),
    }


def main() -> None:
    """Run the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="*", help="names; all where none is given")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if not arguments.cases or c.name in arguments.cases]
    results = []
    for case in chosen:
        found = run(case)
        results.append(found)
        line = {"case": case.name, "budget": found["share_of_budget"]}
        for name, entry in (("ours", found["ours"]), *found["peers"].items()):
            line[name] = {k: (v["ms"], v.get("tflops")) for k, v in entry.items() if "ms" in v}
        print(json.dumps(line), flush=True)
        report = {"environment": _environment(), "results": results}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
