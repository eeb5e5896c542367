"""Who imports whom, in the source and in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "dilated_attention_oracle": ROOT / "oracle/src/dilated_attention_oracle",
    "dilated_attention_pytorch": ROOT
    / "packages/dilated-attention-pytorch/src/dilated_attention_pytorch",
    "dilated_attention_compat": ROOT
    / "packages/dilated-attention-compat/src/dilated_attention_compat",
}


def imported(source: str) -> set[str]:
    """Return the top-level packages that ``source`` imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def importers(package: str, target: str) -> set[str]:
    """Return the files of ``package``, below its folder, that import ``target``."""
    folder = SOURCES[package]
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if target in imported(path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(
    ("package", "target", "allowed"),
    [
        ("dilated_attention_oracle", "dilated_attention_pytorch", set()),
        ("dilated_attention_oracle", "dilated_attention_compat", set()),
        ("dilated_attention_compat", "dilated_attention_pytorch", set()),
        ("dilated_attention_compat", "dilated_attention_oracle", set()),
        ("dilated_attention_pytorch", "dilated_attention_compat", {"_legacy.py"}),
    ],
)
def test_packages_keep_their_distance(package: str, target: str, allowed: set[str]) -> None:
    assert importers(package, target) <= allowed


@pytest.mark.parametrize("target", ["dilated_attention_oracle", "typer", "rich", "matplotlib"])
def test_only_the_command_line_uses_what_only_it_installs(target: str) -> None:
    users = importers("dilated_attention_pytorch", target)
    assert {path for path in users if not path.startswith("cli")} == set()


def test_only_adapters_of_the_oracle_know_torch() -> None:
    users = importers("dilated_attention_oracle", "torch")
    assert {path for path in users if not path.startswith("adapters/")} == set()


def test_imports_inside_functions_are_seen() -> None:
    assert imported("def f():\n    from a.b import c\n    import d.e as g") == {"a", "d"}
    assert imported("from . import x") == set()


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("dilated_attention_oracle", ["torch", "hypothesis", "pytest"]),
        ("dilated_attention_compat", ["torch", "numpy", "typing_extensions"]),
        (
            "dilated_attention_pytorch",
            [
                "typer",
                "rich",
                "matplotlib",
                "hypothesis",
                "dilated_attention_oracle",
                "dilated_attention_compat.legacy",
            ],
        ),
    ],
)
def test_a_fresh_interpreter_imports_only_what_the_package_needs(
    package: str, absent: list[str]
) -> None:
    # torch itself imports some optional packages where they are installed: what counts is what
    # our import adds to it.
    before = "import torch" if package == "dilated_attention_pytorch" else "pass"
    program = (
        f"import sys\n{before}\nbefore = set(sys.modules)\nimport {package}\n"
        f"print(*sorted(set({absent!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
