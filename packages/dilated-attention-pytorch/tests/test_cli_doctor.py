"""`dilated-attention doctor`: what it says of this machine, and of what is broken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("typer")

from dilated_attention_pytorch import __version__
from dilated_attention_pytorch.cli import doctor_checks
from dilated_attention_pytorch.kernels.select import backend_names

if TYPE_CHECKING:
    from click.testing import Result

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def doctor() -> Result:
    from typer.testing import CliRunner

    from dilated_attention_pytorch.cli.app import app

    result: Result = CliRunner().invoke(app, ["doctor"])
    return result


def line(text: str, topic: str) -> str:
    (found,) = re.findall(rf"^{topic} +(\S.*)$", text, re.M)
    return str(found)


def test_without_a_gpu_it_says_what_works_and_why_the_rest_does_not() -> None:
    done = doctor()
    assert done.exit_code == 0, done.output
    text = done.output
    assert f"dilated-attention-pytorch {__version__}" in line(text, "packages")
    assert f"PyTorch {torch.__version__}" in line(text, "versions")
    assert line(text, "GPU").startswith("none: ")
    for name in ("gluon", "triton"):
        assert line(text, f"{name} on cpu") == (
            "no: it needs a CUDA device, the tensors are on cpu"
        )
    assert line(text, "sdpa on cpu") == "works, forward and backward; auto takes it"
    assert line(text, "eager on cpu") == "works, forward and backward"
    assert line(text, "gloo") == "works in one process"
    assert line(text, "verdict") == "OK: sdpa on cpu, eager on cpu, gloo"
    assert not dist.is_initialized()


def test_every_backend_has_a_line() -> None:
    topics = [finding.topic for finding in doctor_checks.backends(CPU)]
    assert topics == [f"{name} on cpu" for name in backend_names()]


@pytest.mark.parametrize("array", range(4))
def test_wrong_numbers_are_broken(array: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = doctor_checks._attend

    def wrong(backend: str, device: torch.device) -> list[Any]:
        found = attend(backend, device)
        if backend == "sdpa":
            found[array] *= 1 + 1e-4
        return found

    monkeypatch.setattr(doctor_checks, "_attend", wrong)
    done = doctor()
    assert done.exit_code == 1
    name = ("out", "dq", "dk", "dv")[array]
    assert f"wrong numbers: the error of {name} is" in line(done.output, "sdpa on cpu")
    assert line(done.output, "verdict") == "BROKEN: sdpa on cpu; the lines above say why"


def test_what_raises_is_broken_and_the_rest_is_still_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("no address for this host\nand a long story")

    monkeypatch.setattr(dist, "init_process_group", refuse)
    done = doctor()
    assert done.exit_code == 1
    assert line(done.output, "gloo") == "BROKEN: RuntimeError: no address for this host"
    assert line(done.output, "eager on cpu").startswith("works")
    assert line(done.output, "verdict") == "BROKEN: gloo; the lines above say why"


def test_packages_of_two_versions_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"dilated-attention-oracle": "0.2.0", "dilated-attention-pytorch": "0.2.1"}
    monkeypatch.setattr(doctor_checks, "_version", versions.get)
    finding = doctor_checks.packages()
    assert finding.broken
    assert "must share one version" in finding.text


def test_a_pytorch_without_process_groups_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    said = [finding.text for finding in doctor_checks.process_groups()]
    assert said == ["no: this PyTorch is built without it", "no: there is no GPU"]
    monkeypatch.setattr(dist, "is_available", lambda: False)
    (only,) = doctor_checks.process_groups()
    assert "without torch.distributed" in only.text


def test_settings_that_change_what_works_are_shown_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    settings = {finding.topic: finding.text for finding in doctor_checks.software()}["settings"]
    assert "NCCL_DEBUG=WARN" in settings
    assert "hush" not in settings


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_what_auto_takes_works() -> None:
    device = torch.device("cuda", 0)
    found = doctor_checks.backends(device)
    assert [finding for finding in found if finding.broken] == []
    (taken,) = [finding for finding in found if "auto takes it" in finding.text]
    assert taken.works
