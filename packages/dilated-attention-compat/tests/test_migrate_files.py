"""Files as they lie on disk: unreadable, not to be written, odd, and importing from one another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from dilated_attention_compat.migrate.cli import main

IMPORT = "from dilated_attention_pytorch import RingDilatedAttention\n"
NEW_IMPORT = "from dilated_attention_pytorch import RingDilatedAttentionV2\n"
OLD = f"{IMPORT}a = RingDilatedAttention([1], [1])\n"
NEW = f"{NEW_IMPORT}a = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1])\n"
TODO = "# TODO(dilated-attention-migrate): RingDilatedAttention: "


def test_a_file_that_cannot_be_followed_is_an_error_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = f"{IMPORT}x = {'+'.join(['1'] * 1000)}\n"
    (tmp_path / "deep.py").write_text(deep)
    (tmp_path / "old.py").write_text(OLD)
    assert main(["--write", str(tmp_path)]) == 2
    assert "deep.py: left as it is: nested too deeply" in capsys.readouterr().err
    assert (tmp_path / "deep.py").read_text() == deep
    assert (tmp_path / "old.py").read_text() == NEW


def test_a_file_that_cannot_be_read_is_an_error_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(OLD)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.py":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["--write", str(tmp_path)]) == 2
    assert "a.py: not read: " in capsys.readouterr().err
    assert (tmp_path / "b.py").read_text() == NEW


def test_a_file_that_cannot_be_written_is_an_error_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(OLD)
    write = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        if path.name == "a.py":
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert main(["--write", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "a.py: not written: " in said
    assert "1 migrated, 0 flagged, 1 errors, 1 changed" in said
    assert (tmp_path / "b.py").read_text() == NEW


def test_folders_may_have_links_to_nowhere_and_pipes(tmp_path: Path) -> None:
    """An editor's lock is a link to nowhere that is named like the file it locks."""
    (tmp_path / "old.py").write_text(OLD)
    os.symlink("user@host.123", tmp_path / ".#old.py")
    os.mkfifo(tmp_path / "pipe.py")
    assert main(["--write", str(tmp_path)]) == 1
    assert (tmp_path / "old.py").read_text() == NEW


def test_a_diff_has_the_lines_that_the_file_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.py"
    path.write_bytes(OLD.encode() + "\x0c\ns = '\x85 \u2028'\n".encode())
    assert main([str(path)]) == 1
    shown = capsys.readouterr().out
    assert shown.endswith(" \x0c\n s = '\x85 \u2028'\n")
    assert "No newline" not in shown


def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(f"# é\n{OLD}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "dilated_attention_compat.migrate", "old.py"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)
    assert b" # ?\n" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OLD)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dilated_attention_compat.migrate", str(tmp_path)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    os.close(write)
    assert done.returncode == 2
    assert done.stderr.endswith("dilated-attention-migrate: nobody reads the output\n")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("train.py", "from pkg.layers import RingDilatedAttention\n"),
        (
            "train.py",
            "from pkg.layers import (\n    Other,\n    RingDilatedAttention as R,  # r\n)\n",
        ),
        ("pkg/model.py", "def f():\n    from .layers import RingDilatedAttention\n"),
        ("pkg/__init__.py", "from .layers import *\n"),
    ],
)
@pytest.mark.parametrize(
    "exported", ["__all__ = ['RingDilatedAttention']\n", "RingDilatedAttention([1], [1])\n"]
)
def test_a_name_that_another_file_imports_from_here_is_flagged(
    tmp_path: Path, importer: str, statement: str, exported: str
) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / importer).write_text(statement)
    (tmp_path / "pkg/layers.py").write_text(IMPORT + exported)
    (tmp_path / "alone.py").write_text(OLD)
    assert main(["--write", str(tmp_path)]) == 1
    assert (tmp_path / "alone.py").read_text() == NEW
    assert (tmp_path / importer).read_text() == statement
    text = (tmp_path / "pkg/layers.py").read_text()
    if "*" in statement and "__all__" not in exported:
        # A star takes every name; only `__all__` says that others are meant to have this one.
        assert text.startswith(NEW_IMPORT)
        return
    name = Path(importer).name
    assert text == f"{TODO}{name} imports it from here; rename it there too\n{IMPORT}{exported}"
    assert main(["--write", str(tmp_path)]) == 1
    assert (tmp_path / "pkg/layers.py").read_text() == text


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("RingDilatedAttention", "device"),
        ("RingDilatedAttention", "dtype"),
        ("RingMultiheadDilatedAttention", "ring_size"),
        ("RingMultiheadDilatedAttention", "use_flash_attention"),
    ],
)
def test_what_an_old_object_had_and_the_new_one_lacks_is_flagged(
    tmp_path: Path, name: str, attribute: str
) -> None:
    path = tmp_path / "old.py"
    path.write_text(
        f"from dilated_attention_pytorch import {name}\n"
        f"layer = {name}(a, b)\nprint(layer.{attribute})\n"
    )
    assert main(["--write", str(path)]) == 1
    text = path.read_text()
    todo = f"# TODO(dilated-attention-migrate): {name}: its {attribute} is gone\n"
    assert f"{todo}print(layer.{attribute})\n" in text


def test_the_ring_size_of_a_core_stays(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(f"{OLD}print(a.ring_size)\n")
    assert main(["--write", str(path)]) == 1
    assert path.read_text() == f"{NEW}print(a.ring_size)\n"


def test_a_name_that_a_package_hands_on_is_flagged(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text(f"{IMPORT}__all__ = ['RingDilatedAttention']\n")
    (tmp_path / "pkg/model.py").write_text("from . import RingDilatedAttention\n")
    assert main(["--write", str(tmp_path)]) == 1
    assert (tmp_path / "pkg/__init__.py").read_text().startswith(f"{TODO}model.py imports it")


@pytest.mark.parametrize(
    "line",
    [
        "cls = getattr(dap, 'RingDilatedAttention')\n",
        "has = hasattr(dap, 'RingDilatedAttention')\n",
        "m = importlib.import_module('dilated_attention_pytorch')\ncls = m.RingDilatedAttention\n",
        "cls = pytest.importorskip('dilated_attention_pytorch').RingDilatedAttention\n",
    ],
)
def test_a_name_that_is_looked_up_at_run_time_is_flagged(tmp_path: Path, line: str) -> None:
    path = tmp_path / "old.py"
    source = f"import importlib\nimport pytest\nimport dilated_attention_pytorch as dap\n{line}"
    path.write_text(source)
    assert main(["--write", str(path)]) == 1
    text = path.read_text()
    assert f"{TODO}looked up at run time; RingDilatedAttentionV2 replaces it\n" in text
    assert "".join(row for row in text.splitlines(True) if TODO not in row) == source
