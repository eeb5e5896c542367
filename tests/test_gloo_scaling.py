"""The scaling suite: what it gates, and the table that shows it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import page, scaling, scaling_cases, scaling_table
from benchmarks.scaling_cases import SMALL

from support import gloo_programs
from support.gloo_pool import GlooPool

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(240), pytest.mark.xdist_group("gloo")]


def test_a_case_has_all_figures_and_its_bytes_are_the_closed_form(gloo_pool: GlooPool) -> None:
    one, other = gloo_pool.run(2, gloo_programs.scaling, "weak", False)
    assert one["share_of_budget"].keys() == {"out", "lse", "dq", "dk", "dv"}
    assert all(share <= 1 for share in one["share_of_budget"].values())
    assert one["bytes_sent"] == one["bytes_planned"] == other["bytes_sent"]
    assert min(one["bytes_sent"]["backward"]) > min(one["bytes_sent"]["forward"]) > 0
    assert len(one["peak_bytes"]) == 2
    assert one["predicted_ms"] is None, "no plan tells the time of a CPU"
    for kind in ("forward", "forward_backward"):
        assert 0 < one[kind]["ms_fastest_rank"] <= one[kind]["ms"] == other[kind]["ms"]


def test_the_dense_case_says_why_it_has_no_peer(gloo_pool: GlooPool) -> None:
    for found in gloo_pool.run(2, gloo_programs.scaling, "dense", True):
        assert found["order"] == "zigzag"
        assert found["context_parallel"] == {"absent": "context_parallel needs CUDA devices"}


@pytest.mark.parametrize("planted", ["out", "dk", "nan", "bytes"])
def test_what_is_wrong_is_not_timed(gloo_pool: GlooPool, planted: str) -> None:
    words = {"nan": "not finite on ranks [1]", "bytes": "bytes sent"}.get(planted, planted)
    for found in gloo_pool.run(2, gloo_programs.scaling, "weak", False, planted):
        assert words in found["wrong"]
        assert "forward" not in found


def test_the_ladder_reaches_the_sequence_and_causal_rows_are_balanced() -> None:
    branches = scaling_cases.ladder(1 << 18, 2048).branches
    assert [b.segment_length for b in branches] == [2048 << i for i in range(8)]
    assert branches[-1].dilation_rate == 128
    made = scaling_cases.suite([1, 4], SMALL, list(scaling_cases.KINDS))
    assert [one.case.name for one in made][:4] == [
        *("weak-R1", "weak-R4", "weak-causal-R1", "weak-causal-R4")
    ]
    orders = {one.case.name: one.order for one in made}
    assert (orders["dense-causal-R1"], orders["dense-causal-R4"]) == ("contiguous", "zigzag")


def report() -> dict[str, Any]:
    """Two rings of one series, as the suite writes them."""

    def one(ring_size: int, ms: float) -> dict[str, Any]:
        figure = {"ms": ms, "tflops_per_rank": 800.0 / ms / ring_size}
        return {
            "case": f"strong-R{ring_size}",
            "kind": "strong",
            "ring_size": ring_size,
            "n": 1 << 20,
            "is_causal": False,
            "forward": figure,
            "forward_backward": figure,
            "bytes_sent": {"forward": [0, 3 << 20], "backward": [5 << 20, 0]},
            "peak_bytes": [8 << 30] * ring_size,
            "planned_peak_bytes": 8 << 30,
            "predicted_ms": {"forward": 2.0, "forward_backward": ms / 2},
        }

    environment = {"device": "a GPU"}
    return {"environment": environment, "effort": {}, "results": [one(1, 8.0), one(2, 5.0)]}


def test_the_table_shows_efficiency_memory_and_prediction() -> None:
    single, double = scaling_table.table(report()).splitlines()[2:]
    assert "| 100.0% | 0.50 | 3 / 5 | 8,192 | 8,192 | 1.00 | – |" in single
    assert "| strong | 1,048,576 | 2 | 5 / 5 | 80 / 80 | 80.0% |" in double
    assert "| 2.00 | – |" in double, "twice the memory of a row"
    wrong = report()
    wrong["results"][1] = wrong["results"][1] | {"wrong": "bytes"}
    assert "| wrong |" in scaling_table.table(wrong)


def test_the_page_shows_results_once_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for path in page.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    (tmp_path / "scaling.json").unlink(missing_ok=True)
    assert scaling_table.ABSENT in page.render(text)
    (tmp_path / "scaling.json").write_text(json.dumps(report()), encoding="utf-8")
    shown = page.render(text)
    assert scaling_table.ABSENT not in shown
    assert scaling_table.table(report()) in shown


def test_a_result_joins_those_of_its_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scaling.json"
    monkeypatch.setattr(scaling, "environment", lambda device: {"device": "a GPU"})
    monkeypatch.setattr(scaling, "asdict", lambda effort: {})
    for result in (*report()["results"], *report()["results"]):
        scaling.add(result, scaling.CPU, scaling.QUICK, out)
    assert json.loads(out.read_text(encoding="utf-8")) == report()
    other = copy.deepcopy(report())
    other["environment"]["device"] = "another"
    out.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ValueError, match="do not belong together"):
        scaling.add(report()["results"][0], scaling.CPU, scaling.QUICK, out)
