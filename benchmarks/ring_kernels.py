"""GPU time of the attention kernels of a whole ring, simulated on one GPU, beside those of R = 1.

`python -m benchmarks.ring_kernels OUT.json` checks sampled rows of every ring's out, lse and
gradients against float64, then adds up the kernels of all ranks by name. A ring computes the same
pairs as one device, so what R > 1 takes more is what cutting a sequence costs the kernels; links,
and the copies by which one process plays many ranks (`other`), are not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch import DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.bench.cases import Case
from dilated_attention_pytorch.bench.environment import environment
from dilated_attention_pytorch.bench.inputs import Inputs, draw
from dilated_attention_pytorch.bench.verify import sample, verify

KERNELS = {
    "forward": ("forward_kernel",),
    "backward": ("prepare_kernel", "dquery_kernel", "dkey_dvalue_kernel"),
}
_TIMES = 5
_N = 1 << 17
_TO_N = DilationPattern.longnet([2048 << i for i in range(7)], [1 << i for i in range(7)])
_DENSE = DilationPattern.longnet([1 << 16], [1])


def _case(name: str, pattern: DilationPattern, n: int, *, is_causal: bool) -> Case:
    return Case(
        name=name,
        group="ladder",
        pattern=pattern,
        n=n,
        heads=16,
        head_dim=128,
        is_causal=is_causal,
    )


# Cases, how their rows are ordered, and the rings they are cut into.
CASES = (
    (_case("ladder up to n", _TO_N, _N, is_causal=False), "contiguous", (1, 2, 4)),
    (_case("ladder up to n, causal", _TO_N, _N, is_causal=True), "contiguous", (1, 2, 4)),
    (_case("dense, causal", _DENSE, 1 << 16, is_causal=True), "zigzag", (1, 2)),
)


def _calls(
    case: Case, inputs: Inputs, order: str, size: int
) -> tuple[Callable[[], tuple[Tensor, ...]], Callable[[], Mapping[str, Tensor]]]:
    leaves = inputs.leaves

    def both() -> tuple[Tensor, ...]:
        out, lse = ring_dilated_attention(
            *leaves,
            case.pattern,
            ring_size=size,
            order=order,
            is_causal=case.is_causal,
            backend="gluon",
            return_lse=True,
        )
        return (out, lse, *torch.autograd.grad(out, leaves, inputs.dout))

    def values() -> Mapping[str, Tensor]:
        found = (x.detach() for x in both())
        return dict(zip(("out", "lse", "dq", "dk", "dv"), found, strict=True))

    return both, values


def _kernel_ms(call: Callable[[], object]) -> dict[str, float]:
    """GPU milliseconds of one call by direction; `other` is everything else."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        call()
        torch.cuda.synchronize()
    found = dict.fromkeys((*KERNELS, "other"), 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, names in KERNELS.items() if event.key in names), "other")
        found[kind] += event.self_device_time_total / 1e3
    return found


def _run(case: Case, order: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    device = torch.device("cuda")
    inputs = draw(case, device)
    samples = sample(case, inputs)
    rings = {}
    for size in sizes:
        both, values = _calls(case, inputs, "contiguous" if size == 1 else order, size)
        share = verify(case, samples, values(), tolerance)
        both()
        times = [_kernel_ms(both) for _ in range(_TIMES)]
        rings[str(size)] = {
            "share_of_budget": share,
            "ms": {kind: round(statistics.median(x[kind] for x in times), 4) for kind in times[0]},
        }
        torch.cuda.empty_cache()
    first = rings["1"]["ms"]
    for ring in rings.values():
        ring["of_one"] = {kind: round(ring["ms"][kind] / first[kind], 4) for kind in KERNELS}
        seconds = {
            "forward": ring["ms"]["forward"] / 1e3,
            "both": (ring["ms"]["forward"] + ring["ms"]["backward"]) / 1e3,
        }
        ring["tflops"] = {
            "forward": round(case.flops / seconds["forward"] / 1e12, 1),
            "both": round(3.5 * case.flops / seconds["both"] / 1e12, 1),
        }
    return {"case": case.name, "shape": str(case), "order": order, "rings": rings}


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"environment": environment(torch.device("cuda")), "results": []}
    for case in CASES:
        report["results"].append(_run(*case))
        print(json.dumps(report["results"][-1]), flush=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
