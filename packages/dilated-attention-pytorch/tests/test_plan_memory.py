"""A plan's memory beside what the allocator counted, within 5 %."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dilated_attention_pytorch import DilationPattern, dilated_attention
from dilated_attention_pytorch.cli.memory_meter import MemoryMeter
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.plan import memory
from dilated_attention_pytorch.plan.memory import Memory, ring_rank, whole_sequence
from dilated_attention_pytorch.plan.tiles import GLUON, TRITON
from dilated_attention_pytorch.schedule import Problem

LIMIT = 0.05
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def close(planned: int, counted: float) -> bool:
    return abs(planned / counted - 1) <= LIMIT


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("row", result("memory_per_rank.json")["rows"], ids=str)
def test_every_rank_of_the_measured_rings(row: dict[str, Any]) -> None:
    case = result("memory_per_rank.json")["case"]
    pattern = DilationPattern.longnet(case["segment_lengths"], case["dilation_rates"])
    problem = Problem(pattern, case["n"], case["heads"], case["heads"])
    layout = make_layout(case["n"], row["ring_size"])
    for rank, counted in enumerate(row["sharded"]):
        shape = {"batch": 1, "head_dim": case["head_dim"], "itemsize": 4}
        planned = ring_rank(problem, layout, rank, **shape, keep=False)
        assert close(planned.peak, counted)


SECOND_STEPS = [row for row in result("memory_ladders.json")["rows"] if row["ring_size"] > 1]
LADDERS = {
    "LongNet": DilationPattern.longnet([2048 << i for i in range(6)], [1 << i for i in range(6)]),
    "LongViT": DilationPattern.preset("longvit", exact=True),
}


def second_step(row: dict[str, Any]) -> Memory:
    case = result("memory_ladders.json")["case"]
    problem = Problem(LADDERS[row["ladder"]], case["n"], case["heads"], case["heads"])
    layout = make_layout(case["n"], row["ring_size"])
    shape = {"batch": 1, "head_dim": case["head_dim"], "itemsize": 4}
    return ring_rank(problem, layout, row["rank_kept"], **shape)


@pytest.mark.parametrize("row", SECOND_STEPS, ids=str)
def test_a_second_step_that_finds_the_buffers_of_the_first(row: dict[str, Any]) -> None:
    planned = second_step(row)
    assert close(planned.peak, row["sharded_kept"])
    assert 0 < planned.kept < planned.forward < planned.backward


def test_kept_buffers_that_are_left_out_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: nothing is kept."""
    monkeypatch.setattr(memory, "kept_buffers", lambda groups, row, wide_row: 0)
    assert not all(close(second_step(row).peak, row["sharded_kept"]) for row in SECOND_STEPS)


CASES: dict[str, dict[str, Any]] = {
    "float32": {"n": 4096, "heads": 4, "kv_heads": 4, "head_dim": 64, "dtype": torch.float32},
    "grouped causal bfloat16": {
        "n": 4096,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "dtype": torch.bfloat16,
        "batch": 2,
        "causal": True,
    },
    "float64": {
        "n": 2000,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 16,
        "dtype": torch.float64,
        "causal": True,
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_process_with_the_reference_kernels(case: dict[str, Any]) -> None:
    pattern = DilationPattern.longnet([512, 4096], [1, 4])
    n, batch, causal = case["n"], case.get("batch", 1), case.get("causal", False)
    counted = {}
    for backward in (False, True):
        with MemoryMeter() as meter:
            inputs = [
                torch.zeros(batch, n, heads, case["head_dim"], dtype=case["dtype"])
                for heads in (case["heads"], case["kv_heads"], case["kv_heads"])
            ]
            query, key, value = (x.requires_grad_(backward) for x in inputs)
            out = dilated_attention(query, key, value, pattern, backend="eager", is_causal=causal)
            if backward:
                out.backward(torch.ones_like(out))
        counted[backward] = meter.peak
    problem = Problem(pattern, n, case["heads"], case["kv_heads"], causal)
    shape = {"head_dim": case["head_dim"], "itemsize": case["dtype"].itemsize}
    planned = ring_rank(problem, make_layout(n, 1), 0, batch=batch, **shape)
    assert close(planned.forward, counted[False])
    assert close(planned.peak, counted[True])


def whole(one: dict[str, Any]) -> Memory:
    problem = Problem(DilationPattern.longnet([1], [1]), one["n"], one["heads"], one["heads"])
    return whole_sequence(problem, batch=1, head_dim=one["head_dim"], itemsize=2)


@pytest.mark.parametrize("backend", [GLUON, TRITON])
@pytest.mark.parametrize("one", result("one_gpu.json")["results"], ids=lambda one: one["case"])
def test_the_measured_gpu(one: dict[str, Any], backend: str) -> None:
    """Query, key, value and dout were there before the measurement."""
    array, figures = one["n"] * one["heads"] * one["head_dim"] * 2, one["backends"][backend]
    assert close(whole(one).forward, 3 * array + figures["forward"]["peak_mib"] * 2**20)
    if "forward_backward" in figures:
        assert close(whole(one).peak, 4 * array + figures["forward_backward"]["peak_mib"] * 2**20)


@pytest.mark.parametrize("backend", [GLUON, TRITON])
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_forward_and_backward_on_this_gpu(backend: str) -> None:
    n, heads, head_dim = 65_536, 4, 64
    pattern = DilationPattern.longnet([2048, 65_536], [1, 32])

    def attend() -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        shape = (1, n, heads, head_dim)
        query, key, value = (
            torch.zeros(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        out = dilated_attention(query, key, value, pattern, backend=backend)
        out.backward(torch.ones_like(out))
        return torch.cuda.max_memory_allocated() - before

    attend()  # Compiles, and puts the tables on the device.
    assert close(whole({"n": n, "heads": heads, "head_dim": head_dim}).peak, attend())
