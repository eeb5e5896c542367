"""The benchmark's registry, runner, figures and reports, on small cases and on a stand-in GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.bench import backends, machine, power, report, summary
from dilated_attention_pytorch.bench.candidate import AbsentError, Answer, Candidate
from dilated_attention_pytorch.bench.cases import CASES, GROUPS, Case, choose
from dilated_attention_pytorch.bench.inputs import Inputs
from dilated_attention_pytorch.bench.peers import PEERS
from dilated_attention_pytorch.bench.timing import Effort

SHORT = Effort(seconds=0.004, rounds=2)
SMALL = Case(
    name="small",
    group="cpu",
    pattern=DilationPattern.longnet([16, 32], [1, 2]),
    n=64,
    heads=2,
    head_dim=8,
    dtype=torch.float32,
)


class FakeGpu(machine.CpuMachine):
    """The CPU, with counters that a GPU would give."""

    def count(self, call: machine.Call) -> machine.Counts:
        call()
        return machine.Counts(launches=3, busy_ms=0.25, peak_bytes=3 << 20)

    def host_microseconds(self, call: machine.Call, times: int) -> list[float] | None:
        return [float(times)] * times


def run(case: Case = SMALL, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"peers": PEERS, "effort": SHORT, "backend_names": ("eager",)}
    return report.run_cases(
        (case,), options.pop("machine", machine.CpuMachine()), tolerance, **given | options
    )


def entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    result: dict[str, Any] = found["results"][0]
    chosen: dict[str, Any] = (result["backends"] | result["peers"])[name]
    return chosen


def test_the_registry_holds_what_the_targets_speak_of() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.group for case in CASES} == set(GROUPS)
    by_name = {case.name: case for case in CASES}
    for size in ("4k", "16k", "128k", "1M"):
        for width in (64, 128):
            plain, causal = (by_name[f"ladder-{size}-d{width}{x}"] for x in ("", "-causal"))
            assert replace(plain, name="", is_causal=True, peers=()) == replace(
                causal, name="", peers=()
            )
    # Every branch of the ladder has rows of 2,048, 4.26 TFLOP in all.
    assert by_name["ladder-128k-d128"].flops == 4 * 128 * 16 * (1 << 17) * 2048 * 31 // 16
    assert {c.n for c in CASES if c.group == "gigapath"} == {10_001, 45_681, 70_001}
    assert by_name["ladder-16M-h8-d64"].n == 16 * by_name["ladder-1M-h8-d64"].n


def test_what_is_timed_where_nothing_is_named() -> None:
    groups = {
        kind: {case.group for case in choose((), (), torch.device(kind))}
        for kind in ("cpu", "cuda")
    }
    assert groups == {"cpu": {"cpu"}, "cuda": set(GROUPS) - {"cpu"}}
    some = choose(["paper-32k"], ["long"], torch.device("cpu"))
    assert [case.name for case in some] == ["paper-32k", "ladder-1M-h8-d64", "ladder-16M-h8-d64"]


@pytest.mark.parametrize(("names", "groups"), [(["x"], []), ([], ["x"])])
def test_an_unknown_case_or_group_is_an_error(names: list[str], groups: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown (case|group) \['x'\]; expected some of"):
        choose(names, groups, torch.device("cpu"))


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown backend \['x'\]"):
        run(backend_names=("x",))


def test_every_backend_has_an_entry_and_its_figures_or_a_reason() -> None:
    found = run(replace(SMALL, peers=("dense_same_n", "strided", "torchscale")), backend_names=())
    assert set(found["results"][0]["backends"]) == set(backends.names())
    assert "CUDA" in entry(found, "triton")["absent"]
    assert "CUDA" in entry(found, "strided")["absent"]
    assert "no such peer" in entry(found, "torchscale")["absent"]
    timed = entry(found, found["results"][0]["auto"])
    assert set(timed["share_of_budget"]) == {"out", "lse", "dq", "dk", "dv"}
    for kind, share in (("forward", 1.0), ("forward_backward", 3.5)):
        for one in (timed, entry(found, "dense_same_n")):
            figure = one[kind]
            assert 0 < figure["ms_p20"] <= figure["ms"] <= figure["ms_p80"]
            assert figure["samples"] >= SHORT.rounds
        rate = SMALL.flops * share / timed[kind]["ms"] / 1e9
        assert timed[kind]["tflops"] == pytest.approx(rate, rel=1e-3)
        # The CPU has no such counters, and none are made up.
        assert not {"launches", "extra_mib", "host_us", "power_w"} & set(timed[kind])


def test_a_case_without_backward_has_none() -> None:
    found = entry(run(replace(SMALL, backward=False)), "eager")
    assert set(found) == {"share_of_budget", "forward"}
    assert set(found["share_of_budget"]) == {"out", "lse"}


def test_counters_of_a_gpu_are_in_the_figures() -> None:
    figures = entry(run(machine=FakeGpu()), "eager")
    out = 64 * 2 * 8 * 4 / 2**20
    for kind, results in (("forward", out), ("forward_backward", 4 * out)):
        figure = figures[kind]
        assert (figure["launches"], figure["busy_ms"], figure["peak_mib"]) == (3, 0.25, 3.0)
        assert figure["extra_mib"] == pytest.approx(3 - results, abs=0.01)
        # Not more calls in a row than a device's queue holds.
        assert figure["host_us"] <= 400 // 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_counted_and_compared_with_cudnn() -> None:
    case = replace(
        SMALL,
        n=1000,
        head_dim=64,
        pattern=DilationPattern.longnet([128, 256], [1, 2]),
        dtype=torch.bfloat16,
        peers=("strided", "dense_same_n"),
    )
    found = run(case, machine=machine.find_machine(), backend_names=())
    assert report.faults(found) == []
    strided = entry(found, "strided")
    # One call for each offset's full segments and one for its ragged last one.
    assert strided["note"].startswith("6 cuDNN calls")
    assert set(strided["share_of_budget"]) == {"dq", "dk", "dv"}
    assert strided["forward"]["launches"] >= 6
    timed = entry(found, found["results"][0]["auto"])
    for kind in ("forward", "forward_backward"):
        assert timed[kind]["launches"] >= 1
        assert timed[kind]["busy_ms"] > 0
        assert timed[kind]["host_us"] > 0
        assert timed[kind]["extra_mib"] >= 0


def test_a_backend_may_say_how_many_pairs_it_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = SimpleNamespace(name="eager", whole=SimpleNamespace(executed_pairs=lambda _: 1000))
    monkeypatch.setattr(backends, "select", lambda name, request: choice)
    figure = entry(run(), "eager")["forward"]
    share = 4 * SMALL.head_dim * 1000 / SMALL.flops
    assert figure["executed_tflops"] == pytest.approx(figure["tflops"] * share, rel=1e-3)


def test_the_reference_is_slow_on_a_gpu_and_timed_only_where_named() -> None:
    inputs: Any = SimpleNamespace(query=SimpleNamespace(device=torch.device("cuda")))
    with pytest.raises(AbsentError, match="the reference"):
        backends.backend("eager", SMALL, inputs, asked=False)


def test_a_wrong_backend_is_reported_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = backends.dilated_attention

    def wrong(*arguments: Any, **options: Any) -> Any:
        return right(*arguments, **options | {"is_causal": True})

    monkeypatch.setattr(backends, "dilated_attention", wrong)
    found = run()
    assert set(entry(found, "eager")) == {"wrong"}
    (fault,) = report.faults(found)
    assert fault.startswith("small, eager: wrong: ")
    assert summary.implementations(found["results"][0])[1] == []


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("no plan"), "failed", "RuntimeError: no plan"),
        (torch.OutOfMemoryError("x"), "absent", "out of memory"),
        (ModuleNotFoundError("No module named 'x'"), "absent", "No module named 'x'"),
    ],
)
def test_what_a_peer_meets_is_written_down(error: Exception, kind: str, words: str) -> None:
    def peer(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
        raise error

    found = run(replace(SMALL, peers=("flex",)), peers={"flex": peer})
    assert entry(found, "flex") == {kind: words}
    assert "forward" in entry(found, "eager")
    assert report.faults(found) == []


def test_a_backend_that_fails_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("illegal address")

    monkeypatch.setattr(backends, "dilated_attention", fail)
    found = run(replace(SMALL, peers=("dense_same_n",)))
    assert report.faults(found) == ["small, eager: failed: RuntimeError: illegal address"]
    assert entry(found, "dense_same_n") == {"absent": "no backend's result to compare with"}


def test_dense_attention_of_the_same_flops_is_compared_by_rate() -> None:
    case = replace(SMALL, n=48, peers=("dense_same_flops",))
    dense = entry(run(case), "dense_same_flops")
    assert "sequences of 16," in dense["note"]
    slow = {"forward": {"ms": 2.0, "tflops": 3.0}}
    ours = {"forward": {"ms": 1.0, "tflops": 1.0}}
    assert summary.ratio(slow, ours) == "2.00"
    assert summary.ratio(slow, ours, by_rate=True) == "0.33"


def test_reports_merge_in_the_registrys_order() -> None:
    one, other = CASES[0].name, CASES[1].name
    origin: dict[str, Any] = {"environment": {"torch": "1"}, "effort": {"seconds": 1}}
    old = origin | {"results": [{"case": other, "x": 1}, {"case": one, "x": 1}]}
    new = origin | {"results": [{"case": other, "x": 2}]}
    assert report.merge(old, new)["results"] == [{"case": one, "x": 1}, {"case": other, "x": 2}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": {"torch": "2", "sources": "a"}}, "torch: '1', '2'"),
        ({"environment": {"torch": "1", "sources": "b"}}, "sources: 'a', 'b'"),
        ({"environment": {"torch": "1"}}, "sources: 'a', None"),
        ({"effort": {"seconds": 2}}, "seconds: 1, 2"),
    ],
)
def test_reports_of_different_origin_do_not_merge(change: dict[str, Any], words: str) -> None:
    old: dict[str, Any] = {
        "environment": {"torch": "1", "sources": "a"},
        "effort": {"seconds": 1},
        "results": [],
    }
    with pytest.raises(ValueError, match=words):
        report.merge(old, old | change)


def test_a_run_refuses_an_old_report_before_it_times_anything() -> None:
    old = run()
    old["environment"]["torch"] = "0"
    seen: list[Case] = []
    with pytest.raises(ValueError, match="do not belong together; torch"):
        run(old=old, before=seen.append)
    assert seen == []


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    found = run()
    report.save(found, tmp_path / "a.json")
    assert report.load(tmp_path / "a.json") == found
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no report .* lacks \['effort', 'environment'"):
        report.load(tmp_path / "b.json")


@pytest.fixture
def monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A monitor that reads a stand-in for nvidia-smi."""

    def start(lines: str) -> Any:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{lines}'\nexec sleep 60\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        properties = SimpleNamespace(uuid="u")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return power.PowerMonitor(torch.device("cuda"))

    return start


def test_power_is_that_of_the_window(
    monitored: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(power.time, "perf_counter", lambda: next(clock))
    with monitored("10, 100\\n600, 1900\\n[N/A], 1\\n620, 1800\\n20, 200\\n") as monitor:
        while len(monitor._samples) < 4:
            power.threading.Event().wait(0.01)
        assert monitor.between([(1, 2)]) == (610, 1850)
        assert monitor.between([(50, 60)]) == (None, None)
