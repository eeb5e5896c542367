"""The command `dilated-attention-migrate`: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libcst")

import dilated_attention_compat as compat
from dilated_attention_compat.migrate.cli import main

OLD = (
    "from dilated_attention_pytorch import RingDilatedAttention\n"
    "a = RingDilatedAttention([1], [1])\n"
)
NEW = (
    "from dilated_attention_pytorch import RingDilatedAttentionV2\n"
    "a = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1])\n"
)
FLAGGED = f"{OLD}class B(RingDilatedAttention): ...\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clean.py").write_text("print(1)\n")
    (tmp_path / "old.py").write_text(OLD)
    return tmp_path


def run_fresh(*arguments: str, blocked: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process in which a package cannot be imported."""
    program = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "from dilated_attention_compat.migrate.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_default_is_a_diff_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder)]) == 1
    printed = capsys.readouterr()
    assert "-a = RingDilatedAttention([1], [1])\n" in printed.out
    assert "+a = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1])\n" in printed.out
    assert printed.err.splitlines()[-1] == (
        "2 files, 1 left, 1 migrated, 0 flagged, 0 errors, 1 changed"
    )
    assert (folder / "old.py").read_text() == OLD


def test_write_writes_and_the_next_run_is_clean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "clean.py").stat().st_mtime_ns
    assert main(["--write", str(folder)]) == 1
    assert capsys.readouterr().out == ""
    assert (folder / "old.py").read_text() == NEW
    assert (folder / "clean.py").stat().st_mtime_ns == before
    assert main(["--write", str(folder)]) == 0
    assert main([str(folder)]) == 0


def test_flags_are_printed_with_place_reason_and_guide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flagged.py"
    path.write_text(FLAGGED)
    assert main(["--write", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{path}:3: RingDilatedAttention: a subclass; ")
    assert compat.require("RingDilatedAttention").guide in lines[1]
    assert main(["--write", str(path)]) == 1
    text = path.read_text()
    assert text.count("TODO(dilated-attention-migrate)") == 1
    path.write_text(
        text.replace("TODO(dilated-attention-migrate):", "dilated-attention-migrate: checked,")
    )
    assert main([str(path)]) == 0


def test_the_report_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "flagged.py").write_text(FLAGGED)
    (folder / "broken.py").write_text("import dilated_attention_pytorch\ndef (:\n")
    assert main(["--report", "json", str(folder)]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == compat.__version__
    assert report["written"] is False
    assert report["counts"] == {
        "files": 4, "left": 1, "migrated": 1, "flagged": 1, "errors": 1, "changed": 2,
    }  # fmt: skip
    by_name = {Path(entry["path"]).name: entry for entry in report["files"]}
    assert set(by_name) == {"old.py", "flagged.py", "broken.py"}
    assert by_name["broken.py"]["error"].startswith("not parsed: ")
    (finding,) = by_name["flagged.py"]["findings"]
    assert finding["line"] == 3
    assert finding["cell"] is None
    assert finding["outcome"] == "flagged"
    assert {f["line"] for f in by_name["old.py"]["findings"]} == {1, 2}


def test_an_error_in_one_file_does_not_stop_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text("import dilated_attention_pytorch\ndef (:\n")
    (folder / "broken.ipynb").write_text('{"dilated_attention_pytorch": ')
    (folder / "form_feed.py").write_bytes(b"import dilated_attention_pytorch\n\n\x0cx = 1\n")
    (folder / "bytes.py").write_bytes(b"# dilated_attention_pytorch\nx = '\xff'\n")
    assert main(["--write", str(folder)]) == 2
    assert "4 errors, 1 changed" in capsys.readouterr().err
    assert (folder / "old.py").read_text() == NEW
    assert (folder / "form_feed.py").read_bytes().endswith(b"\x0cx = 1\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no PATH given"),
        (["no/such/file.py"], "no/such/file.py does not exist"),
        (["--select", "Nothing", "."], "no old name matches Nothing"),
    ],
)
def test_errors_say_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_list_names_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for record in compat.RECORDS:
        assert f"{record.name} ({record.kind}, {record.fate})\n    {record.codemod}\n" in printed
    assert main(["--list", "--select", "DeprecationMixin"]) == 0
    assert capsys.readouterr().out.startswith("DeprecationMixin (class, gone)\n")


def test_star_imports_are_followed_when_told(tmp_path: Path) -> None:
    path = tmp_path / "star.py"
    old = (
        "from dilated_attention_pytorch import *\n"
        "from dilated_attention_pytorch.ring_multihead_dilated_attention import *\n"
        "a, b = RingDilatedAttention([1], [1]), RingMultiheadDilatedAttention(8, 2, [1], [1])\n"
        "def UnfoldRingDilatedAttention(w, r): ...\n"
        "c = UnfoldRingDilatedAttention([1], [1])\n"
    )
    path.write_text(old)
    assert main(["--write", "--star", str(path)]) == 1
    assert path.read_text() == (
        "from dilated_attention_pytorch import *\n"
        "from dilated_attention_pytorch import RingDilatedAttentionV2, "
        "create_multihead_dilated_attention\n"
        "a, b = RingDilatedAttentionV2(segment_lengths=[1], dilation_rates=[1]), "
        'create_multihead_dilated_attention("ring", embed_dim=8, num_heads=2, '
        "segment_lengths=[1], dilation_rates=[1])\n"
        "def UnfoldRingDilatedAttention(w, r): ...\n"
        "c = UnfoldRingDilatedAttention([1], [1])\n"
    )
    assert main(["--star", str(path)]) == 0


def test_folders_of_others_are_passed_over_and_named_files_are_not(tmp_path: Path) -> None:
    for name in (".hidden", "venv/lib", "site-packages", "__pycache__", "own"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "old.py").write_text(OLD)
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    (tmp_path / "own/notes.txt").write_text(OLD)
    os.symlink(tmp_path / "own", tmp_path / "link")
    assert main(["--write", str(tmp_path), str(tmp_path / "own")]) == 1
    changed = {p.parent.name for p in tmp_path.rglob("old.py") if p.read_text() == NEW}
    assert changed == {"own"}
    assert main(["--write", str(tmp_path / ".hidden/old.py")]) == 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "cp1252"])
def test_other_encodings_are_kept(tmp_path: Path, encoding: str) -> None:
    cookie = "" if encoding == "utf-8-sig" else f"# -*- coding: {encoding} -*-\n"
    path = tmp_path / "old.py"
    text = f"{cookie}# Schrödingers Modul\n{{}}name = 'Zürich'\n"
    path.write_bytes(text.format(OLD).encode(encoding))
    assert main(["--write", str(path)]) == 1
    assert path.read_bytes() == text.format(NEW).encode(encoding)


def test_many_files_are_shared_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(120):
        (tmp_path / f"f{index}.py").write_text(OLD if index % 2 else "x = 1\n")
    assert main(["--write", str(tmp_path)]) == 1
    assert "120 files, 60 left, 60 migrated" in capsys.readouterr().err
    assert all((tmp_path / f"f{i}.py").read_text() == NEW for i in range(1, 120, 2))


@pytest.mark.parametrize("blocked", ["torch", "numpy", "dilated_attention_pytorch"])
def test_it_runs_where_torch_is_not_installed(folder: Path, blocked: str) -> None:
    done = run_fresh("--write", str(folder), blocked=blocked)
    assert done.returncode == 1, done.stderr
    assert (folder / "old.py").read_text() == NEW


def test_without_libcst_it_says_what_to_install(folder: Path) -> None:
    program = (
        "import importlib.util, sys\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from dilated_attention_compat.migrate.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "install dilated-attention-compat[migrate]" in done.stderr


def test_the_module_runs_as_a_program(folder: Path) -> None:
    command = [sys.executable, "-m", "dilated_attention_compat.migrate", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "+a = RingDilatedAttentionV2" in done.stdout) == (1, True)
