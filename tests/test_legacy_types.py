"""A type checker flags every old name that is served, and nothing in what replaces it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import dilated_attention_compat as compat
from dilated_attention_compat import Fate

pytest.importorskip("mypy", reason="the types session installs it")

ROOT = Path(__file__).parents[1]
SERVED = [record for record in compat.RECORDS if record.fate is Fate.COMPAT]
SOURCES = [
    ROOT / "packages/dilated-attention-pytorch/src",
    ROOT / "packages/dilated-attention-compat/src",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each snippet, by the snippet's file."""
    folder = tmp_path_factory.mktemp("snippets")
    for number, record in enumerate(SERVED):
        (folder / f"before_{number}.py").write_text(record.before, encoding="utf-8")
        (folder / f"after_{number}.py").write_text(record.after, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--follow-imports", "silent", "--show-error-codes", "."),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, SOURCES))},
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        if match := re.match(r"(\w+)\.py:\d+: (?:error|note): (.*)", line):
            said[match[1]].append(match[2])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return said


@pytest.mark.parametrize("number", range(len(SERVED)), ids=[record.name for record in SERVED])
def test_the_old_snippet_is_flagged(number: int, found: dict[str, list[str]]) -> None:
    record = SERVED[number]
    said = found[f"before_{number}"]
    marked = record.deprecation_message.partition(" Measured: ")[0]
    if record.exported or record.before.startswith("from dilated_attention_pytorch.core import"):
        assert any(marked in line and "[deprecated]" in line for line in said), said
    else:
        # An old module path is not a file: no checker can look into it.
        assert any("[import-not-found]" in line for line in said), said


@pytest.mark.parametrize("number", range(len(SERVED)), ids=[record.name for record in SERVED])
def test_the_new_snippet_is_clean(number: int, found: dict[str, list[str]]) -> None:
    assert found[f"after_{number}"] == []
