"""The explorer's test vectors are Python's answers, and its JavaScript gives them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

EXPLORER = Path(__file__).parents[1] / "docs/explorer"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="no node here; nox -s site_browser runs the formulas in a browser"
)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explorer_vectors", EXPLORER / "vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_check(vectors: Path) -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    command = [NODE, str(EXPLORER / "check.mjs"), str(vectors)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_vectors_are_what_python_answers(tmp_path: Path) -> None:
    generator().main(tmp_path)
    drawn = (tmp_path / "vectors.json").read_text(encoding="utf-8")
    same = drawn == (EXPLORER / "vectors.json").read_text(encoding="utf-8")
    assert same, "docs/explorer/vectors.json is not what vectors.py writes: run nox -s figures"


def test_the_vectors_reach_every_choice() -> None:
    vectors = json.loads((EXPLORER / "vectors.json").read_text(encoding="utf-8"))
    asked = [vector["question"] for vector in vectors]
    for name, values in {
        "rule": {"longnet", "torchscale", "head_groups"},
        "order": {"contiguous", "zigzag"},
        "itemsize": {2, 4, 8},
        "causal": {True, False},
    }.items():
        assert {question[name] for question in asked} == values
    assert any(question["ringSize"] > question["n"] for question in asked)
    assert any(question["kvHeads"] < question["heads"] for question in asked)


@needs_node
def test_the_javascript_gives_the_vectors() -> None:
    done = run_check(EXPLORER / "vectors.json")
    assert done.returncode == 0, done.stderr[:2000]
    count = len(json.loads((EXPLORER / "vectors.json").read_text(encoding="utf-8")))
    assert done.stdout.startswith(f"{count} vectors, 0 differences")


@needs_node
@pytest.mark.parametrize(
    "name", ["offsets", "mask", "pairs", "backward_flops", "row_heads", "ranks"]
)
def test_a_wrong_number_is_found(name: str, tmp_path: Path) -> None:
    (vector, *_) = json.loads((EXPLORER / "vectors.json").read_text(encoding="utf-8"))
    value = vector["answer"][name]
    vector["answer"][name] = f"{value}1" if isinstance(value, str) else value[::-1]
    planted = tmp_path / "vectors.json"
    planted.write_text(json.dumps([vector]), encoding="utf-8")
    done = run_check(planted)
    assert done.returncode == 1
    assert f"vector 0, {name}:" in done.stderr
