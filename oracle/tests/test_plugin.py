"""The pytest plugin: it runs the kit when asked, and otherwise does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dilated_attention_oracle
from dilated_attention_oracle.conformance.plugin import load

SOURCE = Path(dilated_attention_oracle.__file__).parents[1]
KIT = SOURCE / "dilated_attention_oracle" / "conformance"
IMPLEMENTATION = """
supports = frozenset({"longnet", "float64"})
def silent(*arguments, **options): raise ValueError("nothing is computed")
silent.supports = supports
"""


class Unknown:
    supports = frozenset({"longnet", "float64", "telepathy"})


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(IMPLEMENTATION)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line"]
    command += ["-p", "dilated_attention_oracle.conformance.plugin", f"--rootdir={folder}"]
    command += ["-c", str(folder / "pytest.ini"), f"--confcutdir={KIT}", *arguments]
    paths = [str(folder), str(SOURCE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_option_alone_collects_the_kit(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--attention-impl=mine:silent", "--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TestSharding::test_only_needed_rows_travel[mine:silent" in done.stdout


def test_named_tests_run_without_loading_the_kit(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_kit_is_not_loaded():\n"
        "    assert 'dilated_attention_oracle.conformance.judge' not in sys.modules\n"
    )
    done = run_pytest(tmp_path, "--attention-impl=mine:silent", "test_mine.py")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent:thing", "No module named 'absent'"),
        ("math:absent", "no attribute 'absent'"),
        ("math:sqrt", "expected a callable with"),
        (f"{__name__}:Unknown", "telepathy"),
    ],
)
def test_wrong_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        load(name)


def test_a_wrong_name_ends_the_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--attention-impl=absent:thing")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "No module named 'absent'" in done.stderr


def test_kit_without_the_option_says_what_to_do(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, str(KIT / "test_determinism.py"))
    assert done.returncode != 0
    assert "--attention-impl=MODULE:OBJECT" in done.stdout


def test_fixture_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest, mine\n"
        "from dilated_attention_oracle.conformance.test_errors import TestErrors\n"
        "@pytest.fixture(scope='session')\n"
        "def attention_implementation(): return mine.silent\n"
    )
    done = run_pytest(tmp_path, "test_mine.py", "-k", "test_wrong_shapes_raise")
    assert "6 passed" in done.stdout, done.stdout + done.stderr
