"""`dilated-attention plan`: text, JSON, the picture, and what it refuses."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dilated_attention_pytorch.plan.report import duration

if TYPE_CHECKING:
    from typer.testing import Result

CALL = ("--n", "131072", "--heads", "16", "--head-dim", "128")
LADDER = ("--segment-lengths", "2048,4096,8192,16384,32768", "--dilation-rates", "1,2,4,8,16")


@pytest.fixture(autouse=True)
def needs_the_extra() -> None:
    pytest.importorskip("typer")


def plan(*arguments: str) -> Result:
    from typer.testing import CliRunner

    from dilated_attention_pytorch.cli.app import app

    runner = CliRunner(env={"COLUMNS": "1000", "TERM": "dumb"})
    result: Result = runner.invoke(app, ["plan", *arguments])
    return result


def test_the_text_says_it_all() -> None:
    done = plan(*CALL, *LADDER, "--ring-size", "8")
    assert done.exit_code == 0, done.output
    for said in (
        "R = 8 of NVIDIA H200",
        "memory     forward 429 MB, backward 733 MB of 141 GB on a rank: fits",
        "a rank sends 8,388,608, receives 8,388,608; to one other 8,388,608",
        "FLOPs      forward 4.261e+12, backward 1.065e+13",
        "transport  key_value by p2p: at most 25.2 MB at once, p2p 112 us",
        "transport  gradient by p2p: at most 50.5 MB at once, p2p 193 us",
        "at the rates of the backend gluon on one NVIDIA H200",
        "longest    n =",
        "Best R: 1",
        "Done first: R =",
    ):
        assert said in done.output


def test_json_has_the_numbers_of_the_text() -> None:
    done = plan(*CALL, *LADDER, "--ring-size", "8", "--json")
    found = json.loads(done.output)
    assert found["ring"]["sent"] == {"forward": 8_388_608, "backward": 25_165_824}
    assert [one["ring_size"] for one in found["rings"]] == [1, 2, 4, 8, 16, 32, 64]
    step = found["ring"]["step"]
    text = plan(*CALL, *LADDER, "--ring-size", "8").output
    assert f"time       {duration(step['total'])} a step" in text
    assert step.pop("is_bound") is False
    assert step.pop("total") == pytest.approx(sum(step.values()))
    assert found["rates"] == {"backend": "gluon", "device": "NVIDIA H200"}
    key_value, gradient = found["ring"]["transports"]
    assert key_value["exchange"] == {"label": "key_value", "messages": 3, "nbytes": 25_239_552}
    assert key_value["chosen"] == gradient["chosen"] == "p2p"
    assert key_value["symmetric"] is None
    assert gradient["p2p"] > key_value["p2p"] > found["links"]["p2p"]["latency"]
    assert found["rings"][0]["transports"] == []
    assert found["call"]["pattern"]["branches"][1] == {"segment_length": 4096, "dilation_rate": 2}


def test_it_ends_with_1_where_the_call_does_not_fit() -> None:
    done = plan(*CALL, *LADDER, "--gpu-memory", "1", "--most", "2")
    assert done.exit_code == 1
    assert "does NOT fit" in done.output
    assert "No ring up to R = 2 fits." in done.output


def test_a_link_of_ones_own_is_what_rows_travel_by() -> None:
    arguments = (*CALL, *LADDER, "--ring-size", "8", "--most", "1", "--json")
    found, slow = (
        json.loads(plan(*arguments, *more).output) for more in ((), ("--link-gbps", "1"))
    )
    way, other = (one["ring"]["transports"][0] for one in (found, slow))
    assert slow["links"]["source"] == "--link-gbps"
    latency = found["links"]["p2p"]["latency"]
    assert other["p2p"] - latency == pytest.approx(way["exchange"]["nbytes"] / 1e9)
    assert slow["ring"]["step"]["exposed_forward"] > found["ring"]["step"]["exposed_forward"]


def test_times_of_another_gpu_say_where_they_come_from() -> None:
    done = plan(*CALL, *LADDER, "--gpu", "h100", "--most", "1")
    assert "times are those of the H200" in done.output
    assert "of 80 GB" in done.output


def test_a_call_that_was_not_measured_says_why_it_has_no_time() -> None:
    done = plan(*CALL, "--preset", "gigapath", "--dtype", "float32", "--most", "1")
    assert done.exit_code == 0, done.output
    assert "time       unknown: times were measured in float16 and bfloat16" in done.output
    assert "R = 1: nothing travels" in done.output


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_picture(tmp_path: Path, dtype: str) -> None:
    """With times there are two panels; without, one."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "plan.png"
    done = plan(*CALL, *LADDER, "--dtype", dtype, "--most", "8", "--png", str(path))
    assert done.exit_code == 0, done.output
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1320, 540)


def test_without_matplotlib_the_picture_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "plan.png"
    done = plan(*CALL, *LADDER, "--most", "1", "--png", str(path))
    assert done.exit_code == 2
    assert "pip install matplotlib" in done.output
    assert not path.exists()
    assert plan(*CALL, *LADDER, "--most", "1").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((*CALL,), "give either --preset or --segment-lengths"),
        ((*CALL, *LADDER, "--preset", "gigapath"), "give either --preset or --segment-lengths"),
        ((*CALL, "--preset", "nothing"), "unknown preset 'nothing'"),
        ((*CALL, *LADDER, "--rule", "other"), "unknown rule 'other'"),
        ((*CALL, *LADDER, "--gpu", "abacus"), "got 'abacus'"),
        ((*CALL, *LADDER, "--kv-heads", "5"), "multiple of num_kv_heads"),
        ((*CALL, *LADDER, "--dtype", "int8"), "unknown dtype 'int8'"),
        ((*CALL, *LADDER, "--png", "no/such/plan.png"), "no folder"),
        ((*CALL, "--segment-lengths", "a", "--dilation-rates", "1"), "got 'a'"),
        ((*CALL, "--segment-lengths", "4", "--dilation-rates", "1,2"), "the same length"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], why: str) -> None:
    done = plan(*arguments)
    assert done.exit_code == 2
    assert why in done.output
