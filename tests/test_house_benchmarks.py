"""What the performance page states is what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import memory_per_rank, memory_table, plot

from dilated_attention_pytorch import DilationPattern, cost
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks/results" / name).read_text())
    return found


def test_the_table_of_one_gpu_is_that_of_the_results() -> None:
    assert plot.table(load("one_gpu.json")) in PAGE


def test_every_timed_case_was_within_the_tolerance() -> None:
    for result in load("one_gpu.json")["results"]:
        assert result["share_of_budget"]
        assert all(share <= 1.0 for share in result["share_of_budget"].values())


def test_the_table_of_memory_is_that_of_the_results() -> None:
    assert memory_table.table(load("memory_per_rank.json")) in PAGE


def test_the_closed_forms_beside_the_measured_memory_are_current() -> None:
    report = load("memory_per_rank.json")
    heads, head_dim = memory_per_rank.HEADS, memory_per_rank.HEAD_DIM
    pattern = DilationPattern.longnet(memory_per_rank.SEGMENTS, memory_per_rank.RATES)
    problem = Problem(pattern, memory_per_rank.N, heads, heads)
    for row in report["rows"]:
        layout = make_layout(problem.n, row["ring_size"])
        for name, formula in (
            ("closed_form_sharded", cost.rank_memory),
            ("closed_form_replicated", cost.replicated_memory),
        ):
            planned = [
                formula(problem, layout, rank, batch=1, head_dim=head_dim, itemsize=4)
                for rank in range(layout.ring_size)
            ]
            assert row[name] == max(planned)
        # Tiles come on top, so what was measured is never less.
        assert max(row["sharded"]) >= row["closed_form_sharded"]
        assert max(row["replicated"]) >= row["closed_form_replicated"]
