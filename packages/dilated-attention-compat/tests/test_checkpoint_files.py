"""`dilated-attention-migrate checkpoint IN OUT`: files in, files out, nothing executed."""

from __future__ import annotations

import builtins
import json
import os
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("safetensors")

import safetensors.torch as safetensors
from safetensors import safe_open

from dilated_attention_compat.checkpoint_files import convert, read_checkpoint
from dilated_attention_compat.migrate.cli import main

E = 4
LINEARS = ("q_proj", "k_proj", "v_proj", "out_proj")


def fused(prefix: str = "", *, k_ln: bool = True) -> dict[str, torch.Tensor]:
    shapes = {"qkv_proj.weight": (3 * E, E), "qkv_proj.bias": (3 * E,)}
    shapes |= {"out_proj.weight": (E, E), "q_ln.weight": (E,), "q_ln.bias": (E,)}
    shapes |= {"k_ln.weight": (E,), "k_ln.bias": (E,)} if k_ln else {}
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


def separate(prefix: str = "", *norms: str) -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}{name}.weight": torch.randn(E, E) for name in LINEARS}
    return tensors | {
        f"{prefix}{name}.{kind}": torch.randn(E) for name in norms for kind in ("weight", "bias")
    }


def run(source: Path, target: Path, *more: str) -> int:
    return main(["checkpoint", str(source), str(target), *more])


@pytest.mark.parametrize("old", ["in.pt", "in.safetensors"])
@pytest.mark.parametrize("new", ["out.pt", "out.safetensors"])
def test_every_pair_of_formats(
    tmp_path: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {
        **fused("a.attention_core."),
        **separate("b._impl."),
        **separate("c.", "q_ln", "k_ln"),
    }
    weights["head.weight"] = torch.randn(2, E)
    if old.endswith(".pt"):
        torch.save(weights, tmp_path / old)
    else:
        safetensors.save_file(weights, tmp_path / old)
    assert run(tmp_path / old, tmp_path / new) == 1
    found = read_checkpoint(tmp_path / new)
    expected = {
        name.replace("attention_core.", "").replace("_impl.", ""): tensor
        for name, tensor in weights.items()
    }
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    said = capsys.readouterr().err
    assert "a.attention_core: fused qkv_proj\n" in said
    assert "b._impl: separate projections, no norm\n" in said
    assert "c: separate projections, q_ln and k_ln\n" in said
    assert "11 keys renamed" in said
    assert "trained under wrong attention: the softmax ran over the heads" in said
    assert "every block of keys had a softmax of its own" in said


def test_right_weights_give_exit_status_0(tmp_path: Path) -> None:
    torch.save(separate("", "q_ln", "k_ln"), tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / "out.pt") == 0


def test_norm_is_fused_away_and_k_ln_is_added(tmp_path: Path) -> None:
    weights = separate("x.", "norm")
    torch.save({"model": weights, "optimizer": {"state": {0: 1}}, "epoch": 3}, tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / "out.pt", "--report", "json") == 1
    found = read_checkpoint(tmp_path / "out.pt")
    assert (found["epoch"], found["optimizer"]) == (3, {"state": {0: 1}})
    model = found["model"]
    stacked = torch.cat([weights[f"x.{name}.weight"] for name in LINEARS[:3]])
    assert torch.equal(model["x.qkv_proj.weight"], stacked)
    assert torch.equal(model["x.q_ln.bias"], weights["x.norm.bias"])
    assert torch.equal(model["x.k_ln.weight"], torch.ones(E))
    assert torch.equal(model["x.k_ln.bias"], torch.zeros(E))
    assert not any("norm" in name for name in model)


def test_the_report_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested = {"state_dict": OrderedDict(fused("m.", k_ln=False)), "optimizer": {}}
    nested["ema"] = {"weights": separate("m.", "norm")}
    torch.save(nested, tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / "out.pt", "--report", "json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["layers"] == [
        {"prefix": "m.", "keys": "fused qkv_proj"},
        {"prefix": "m.", "keys": "separate projections and norm"},
    ]
    assert any("k_ln added as the identity" in note for note in report["notes"])
    assert any("the optimizer's state" in note for note in report["notes"])
    assert "fine-tune" in report["warning"]


def test_order_versions_and_tensors_that_do_not_change_are_kept() -> None:
    weights: OrderedDict[str, Any] = OrderedDict(
        first=torch.ones(1), **fused("m."), last=torch.ones(1)
    )
    weights._metadata = {"m": {"version": 1}}  # type: ignore[attr-defined]
    content = convert(weights).content
    assert list(content) == list(weights)
    assert content._metadata == {"m": {"version": 1}}
    assert all(content[name] is weights[name] for name in weights)


class Bomb:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(
    tmp_path: Path, zipped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "sprung"
    source = tmp_path / "in.pt"
    content = {**fused(), "more": Bomb(trap)}
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    assert run(source, tmp_path / "out.pt") == 2
    assert not trap.exists()
    assert not (tmp_path / "out.pt").exists()
    said = capsys.readouterr().err
    assert "is refused: it holds more than tensors and plain containers" in said
    assert f"({os.mkdir.__module__}.mkdir)" in said
    assert "torch.save(model.state_dict(), path)" in said


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / "out.pt") == 2


@pytest.mark.parametrize("name", ["in.pt", "in.safetensors"])
@pytest.mark.parametrize(
    "content", [b"nothing of the kind", b"hello", b"", b"PK\x03\x04", b"\x80\x02N."]
)
def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, tmp_path / "out.pt") == 2
    assert f"{name} " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no/such/folder/out.pt", "no/such/folder/out.safetensors"])
def test_what_cannot_be_written_is_an_error(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(fused(), tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / name) == 2
    assert f"{name} cannot be written: " in capsys.readouterr().err


def test_what_a_safetensors_file_says_of_itself_is_kept(tmp_path: Path) -> None:
    """Transformers refuses a file whose metadata lack the format."""
    safetensors.save_file(fused(), tmp_path / "in.safetensors", {"format": "pt", "step": "7"})
    torch.save(fused(), tmp_path / "in.pt")
    for source, expected in (("in.safetensors", {"step": "7"}), ("in.pt", {})):
        target = tmp_path / f"{source}.safetensors"
        assert run(tmp_path / source, target) == 1
        with safe_open(target, "pt") as file:
            assert file.metadata() == {"format": "pt", **expected}


def test_what_is_no_state_dict_is_passed_on_as_it_is(tmp_path: Path) -> None:
    """Schedulers keep a Counter, and other models' state dicts their versions."""
    other = OrderedDict(weight=torch.ones(1))
    other._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    milestones = Counter({30: 1, 60: 2})
    torch.save(
        {"model": fused(), "lr": {"milestones": milestones}, "gan": other}, tmp_path / "in.pt"
    )
    assert run(tmp_path / "in.pt", tmp_path / "out.pt") == 1
    found = read_checkpoint(tmp_path / "out.pt")
    assert found["lr"]["milestones"] == milestones
    assert type(found["lr"]["milestones"]) is Counter
    assert found["gan"]._metadata == {"": {"version": 2}}


def test_tied_weights_can_be_written(tmp_path: Path) -> None:
    weights = fused("m.")
    weights["head.weight"] = weights["embed.weight"] = torch.randn(2, E)
    weights["flipped"] = torch.randn(2, 3).T
    torch.save(weights, tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / "out.safetensors") == 1
    found = read_checkpoint(tmp_path / "out.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (fused(), "in.pt", "in.pt exists; name a new file"),
        ({"weight": torch.ones(1)}, "out.pt", "no layer of the historical package"),
        ([1, 2], "out.pt", "no layer of the historical package"),
        ({"model": fused()}, "out.safetensors", "holds one state dict and nothing else"),
    ],
)
def test_errors_say_what_is_wrong(
    tmp_path: Path, content: Any, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "in.pt")
    assert run(tmp_path / "in.pt", tmp_path / target) == 2
    assert message in capsys.readouterr().err
    assert target == "in.pt" or not (tmp_path / target).exists()


def test_a_missing_file_and_a_missing_library_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "no.pt", tmp_path / "out.pt") == 2
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError("No module named 'safetensors'")
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "in.safetensors").write_bytes(b"")
    assert run(tmp_path / "in.safetensors", tmp_path / "out.pt") == 2
    assert "install dilated-attention-compat[checkpoint]" in capsys.readouterr().err
