"""What the performance page states and shows is what the committed results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import memory_per_rank, merge, page, peers, plot

from dilated_attention_pytorch import DilationPattern, cost
from dilated_attention_pytorch.bench import candidate, inputs
from dilated_attention_pytorch.bench.cases import CASES
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem

ONE_GPU = page.load("one_gpu.json")


def text() -> str:
    return page.PAGE.read_text(encoding="utf-8")


def change_a_figure(report: dict[str, Any]) -> None:
    result = report["results"][0]
    result["backends"][result["auto"]]["forward"]["ms"] *= 2


def lose_a_case(report: dict[str, Any]) -> None:
    del report["results"][0]


def other_machine(report: dict[str, Any]) -> None:
    report["environment"]["device"] = "another"


def test_the_page_is_that_of_the_results() -> None:
    assert page.render(text()) == text(), "run python -m benchmarks.page"


@pytest.mark.parametrize("change", [change_a_figure, lose_a_case, other_machine])
def test_a_drift_of_the_results_shows(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in page.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.render(text()) == text()
    report = page.load("one_gpu.json")
    change(report)
    (tmp_path / "one_gpu.json").write_text(json.dumps(report), encoding="utf-8")
    assert page.render(text()) != text()


def test_a_page_without_a_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="the page needs one <!-- cases -->"):
        page.render(text().replace("<!-- cases -->", ""))


def test_the_figures_are_those_of_the_results() -> None:
    shown = re.findall(r"\]\(assets/(one_gpu_\w+)\.svg\)", text())
    assert sorted(shown) == sorted(f"one_gpu_{name}" for name in plot.FIGURES)
    for name in shown:
        figure = (page.ASSETS / f"{name}.svg").read_text(encoding="utf-8")
        assert f"one_gpu.json {page.digest()}" in figure, "run python -m benchmarks.page"


def test_figures_are_drawn_from_a_report(tmp_path: Path) -> None:
    for path in plot.draw(ONE_GPU, "0123", tmp_path):
        figure = path.read_text(encoding="utf-8")
        assert "one_gpu.json 0123" in figure
        assert len(figure) > 10_000


def test_every_timed_figure_was_within_the_tolerance() -> None:
    for result in ONE_GPU["results"]:
        for entry in result["backends"].values():
            assert ("forward" in entry) == ("share_of_budget" in entry)
            assert all(share <= 1.0 for share in entry.get("share_of_budget", {}).values())
        assert "forward" in result["backends"][result["auto"]]


def test_the_results_are_those_of_the_registry() -> None:
    flops = {case.name: case.flops for case in CASES}
    for result in ONE_GPU["results"]:
        assert result["flops_forward"] == flops[result["case"]]


def test_reports_of_one_machine_are_joined(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("out", "a", "b")]
    first, *others = ONE_GPU["results"]
    for name, results in zip(names[1:], (others, [first]), strict=True):
        Path(name).write_text(json.dumps({**ONE_GPU, "results": results}), encoding="utf-8")
    merge.main(names)
    assert json.loads(Path(names[0]).read_text(encoding="utf-8")) == ONE_GPU


def test_torchscale_is_refused_where_its_kernel_cannot_run() -> None:
    case = next(case for case in CASES if case.group == "cpu")
    drawn = inputs.draw(case, torch.device("cpu"))
    with pytest.raises(candidate.AbsentError, match="needs a CUDA device"):
        peers.torchscale(case, drawn, candidate.Answer(drawn.query, drawn.query))


def test_the_closed_forms_beside_the_measured_memory_are_current() -> None:
    report = page.load("memory_per_rank.json")
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
