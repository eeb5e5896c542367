"""The command line without its extra."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from dilated_attention_pytorch import cli


@pytest.mark.parametrize("absent", ["typer", "rich", "matplotlib", "dilated_attention_oracle"])
def test_without_the_extra_it_says_what_to_install(
    absent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def hide(name: str) -> ModuleSpec | None:
        return None if name == absent else find_spec(name)

    monkeypatch.setattr(cli, "find_spec", hide)
    assert cli.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"needs {absent}:" in printed.err
    assert "dilated-attention-pytorch[cli]" in printed.err


def test_the_room_is_imported_without_the_extra() -> None:
    # typer, rich and matplotlib set to None cannot be imported.
    program = (
        "import sys; import torch\n"
        "for name in ('typer', 'rich', 'matplotlib', 'dilated_attention_oracle'):\n"
        "    sys.modules[name] = None\n"
        "import dilated_attention_pytorch.cli\n"
        "import dilated_attention_pytorch.cli.memory_meter\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
