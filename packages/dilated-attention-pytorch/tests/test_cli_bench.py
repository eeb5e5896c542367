"""`dilated-attention bench` on small cases: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.bench import backends
from dilated_attention_pytorch.bench.cases import CASES, Case

if TYPE_CHECKING:
    from click.testing import Result

SMALL = Case(
    name="small",
    group="cpu",
    pattern=DilationPattern.longnet([16, 32], [1, 2]),
    n=64,
    heads=2,
    head_dim=8,
    dtype=torch.float32,
    peers=("dense_same_n", "torchscale"),
)


@pytest.fixture(autouse=True)
def small_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry whose cases take milliseconds."""
    pytest.importorskip("typer")
    cases = (SMALL, replace(SMALL, name="causal", is_causal=True))
    for module in ("bench.cases", "bench.report", "cli.bench"):
        monkeypatch.setattr(f"dilated_attention_pytorch.{module}.CASES", cases)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)


def bench(*arguments: str) -> Result:
    from typer.testing import CliRunner

    from dilated_attention_pytorch.cli.app import app

    runner = CliRunner(env={"COLUMNS": "1000"})
    result: Result = runner.invoke(app, ["bench", "--quick", *arguments])
    return result


def written(name: str = "dilated-attention-bench.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(name).read_text(encoding="utf-8"))
    return found


def test_it_times_prints_and_writes() -> None:
    done = bench()
    assert done.exit_code == 0, done.output
    for words in ("1/2 small", "2/2 causal", "eager", "fwd+bwd", "TFLOP/s", "triton absent: "):
        assert words in done.output
    assert "torchscale absent: this run was given no such peer" in done.output
    report = written()
    assert {"device", "torch", "python", "sources"} <= set(report["environment"])
    assert [result["case"] for result in report["results"]] == ["small", "causal"]
    for result in report["results"]:
        assert result["auto"] in result["backends"]
        entry = result["backends"][result["auto"]]
        assert max(entry["share_of_budget"].values()) <= 1
        assert {"ms", "ms_p20", "ms_p80", "samples", "tflops"} <= set(entry["forward_backward"])
        assert "forward" in result["peers"]["dense_same_n"]


def test_cases_backends_and_peers_can_be_chosen() -> None:
    done = bench("--case", "causal", "--backend", "eager", "--no-peers", "--output", "a.json")
    assert done.exit_code == 0, done.output
    (result,) = written("a.json")["results"]
    assert result["case"] == "causal"
    assert set(result["backends"]) == {"eager"}
    assert all("absent" in entry for entry in result["peers"].values())


def test_a_second_run_adds_to_the_file_of_the_same_machine_only() -> None:
    assert bench("--case", "causal").exit_code == 0
    assert bench("--case", "small", "--append").exit_code == 0
    report = written()
    assert [result["case"] for result in report["results"]] == ["small", "causal"]
    report["environment"]["torch"] = "0"
    Path("dilated-attention-bench.json").write_text(json.dumps(report))
    done = bench("--case", "small", "--append")
    assert done.exit_code == 2
    assert "the reports do not belong together; torch: '0'" in done.output
    assert written() == report
    assert bench("--case", "small").exit_code == 0
    assert [result["case"] for result in written()["results"]] == ["small"]


def test_a_wrong_backend_ends_with_1_and_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    right = backends.dilated_attention

    def wrong(*arguments: Any, **options: Any) -> Any:
        return right(*arguments, **options | {"scale": 0.1})

    monkeypatch.setattr(backends, "dilated_attention", wrong)
    done = bench("--case", "small", "--backend", "eager")
    assert done.exit_code == 1
    assert "small, eager: wrong: " in done.output
    assert set(written()["results"][0]["backends"]["eager"]) == {"wrong"}


def test_an_interrupted_run_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    from dilated_attention_pytorch.bench import report

    run_case = report.run_case

    def interrupted(case: Case, *arguments: Any, **options: Any) -> Any:
        if case.name == "causal":
            raise KeyboardInterrupt
        return run_case(case, *arguments, **options)

    monkeypatch.setattr(report, "run_case", interrupted)
    done = bench()
    assert done.exit_code == 130
    assert [result["case"] for result in written()["results"]] == ["small"]


def test_the_list_names_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dilated_attention_pytorch.cli.bench.CASES", CASES)
    done = bench("--list")
    assert done.exit_code == 0
    assert all(case.name in done.output for case in CASES)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--case", "absent"), "unknown case ['absent']; expected some of ['causal', 'small']"),
        (("--group", "absent"), "unknown group ['absent']"),
        (("--backend", "absent"), "unknown backend ['absent']"),
        (("--output", "absent/x.json"), "no folder"),
        (("--append", "--output", "other.json"), "is no report of this benchmark"),
    ],
)
def test_wrong_options_end_with_2(arguments: tuple[str, ...], words: str) -> None:
    Path("other.json").write_text("{}")
    done = bench(*arguments)
    assert done.exit_code == 2
    assert words in done.output
