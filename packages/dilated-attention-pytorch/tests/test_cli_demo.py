"""`dilated-attention demo` as users run it: to its end, with wrong options, and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dilated_attention_pytorch.cli.pool import RankFailedError
from dilated_attention_pytorch.cli.results import DemoSettings

if TYPE_CHECKING:
    from click.testing import Result

COMMAND = (sys.executable, "-m", "dilated_attention_pytorch.cli")
SMALL = ("--ranks", "2", "--length", "64", "--memory-length", "256")
MARK = "DILATED_ATTENTION_TEST"


def run_here(*arguments: str) -> Result:
    """The command in this process; where its extra is not installed, the rest can be tested."""
    testing = pytest.importorskip("typer.testing")
    from dilated_attention_pytorch.cli.app import app

    result: Result = testing.CliRunner(env={"COLUMNS": "1000"}).invoke(app, arguments)
    return result


def run(*arguments: str, cwd: Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.gloo
@pytest.mark.timeout(120)
def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"to be or not to be \xff\x00[bold]" * 40)
    done = run("demo", "--steps", "3", "--text", "text", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for words in ("training, R = 1", "training, R = 2", "3/3", "relative difference", "1/R"):
        assert words in done.stdout
    # Text that looks like markup is text.
    assert "[bold]" in done.stdout
    picture = (tmp_path / "dilated-attention-demo.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.slow
@pytest.mark.gloo
@pytest.mark.timeout(400)
def test_the_full_demo_takes_less_than_three_minutes(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run("demo", cwd=tmp_path, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 180
    assert "60/60" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--text", "absent"), "No such file or directory: 'absent'"),
        (("--text", "short"), "the text has 5 bytes, at least 2,049 are needed"),
        (("--text", "."), "Is a directory"),
        (("--out", "absent/x.png"), "Invalid value for --out: no folder"),
        (("--ranks", "1"), "greater than or equal to 2"),
        (("--steps", "0"), "greater than or equal to 1"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_wrong_options_end_with_2(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_bytes(b"short")
    done = run_here("demo", *arguments)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        (True, 0, ""),
        (False, 1, ""),
        (RankFailedError("rank 3 died\n[log]"), 1, "rank 3 died\n[log]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_exit_status_says_what_happened(
    result: bool | BaseException,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_demo(settings: DemoSettings, console: object) -> bool:
        assert (settings.steps, settings.ranks, settings.length) == (60, 4, 2048)
        if isinstance(result, BaseException):
            raise result
        return result

    pytest.importorskip("typer")
    monkeypatch.setattr("dilated_attention_pytorch.cli.app.run_demo", run_demo)
    done = run_here("demo", "--out", str(tmp_path / "x.png"))
    assert done.exit_code == code
    assert words in done.output


def marked(mark: str) -> set[int]:
    """Processes whose environment holds the mark."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        # A process that has ended and was not yet waited for has no environment.
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            found.add(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


TERMINATED_WHILE_STARTING = """
import os, signal
from multiprocessing import util
spawn = util.spawnv_passfds

def terminated(path, arguments, descriptors):
    child = spawn(path, arguments, descriptors)
    if any(b"spawn_main" in os.fsencode(argument) for argument in arguments):
        print("terminated", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    return child

util.spawnv_passfds = terminated
from dilated_attention_pytorch.cli.__main__ import main
main()
"""


@pytest.mark.gloo
@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_signal_between_a_process_and_its_instructions(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED_WHILE_STARTING, "demo", *SMALL, "--text", __file__],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "terminated" in done.stdout
    assert (done.returncode, done.stderr) == (143, "")
    assert not any(tmp_path.glob("dilated-attention-*"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Tests that a shell starts in the background ignore Ctrl-C, and programs inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.gloo
@pytest.mark.timeout(180)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("number", "while_training", "code"),
    [
        (signal.SIGINT, False, 130),
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, True, -signal.SIGKILL),
    ],
)
def test_no_process_outlives_the_demo(
    number: signal.Signals, while_training: bool, code: int, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [*COMMAND, "demo", "--steps", "1000000", *SMALL, "--text", __file__],
        cwd=tmp_path,
        env=os.environ | {MARK: mark, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Ranks, their parent, and the tracker that multiprocessing starts.
        assert wait_until(lambda: len(marked(mark)) >= 4, 60)
        logs = "dilated-attention-*/rank*.log"
        if while_training:
            joined = "dilated-attention-*/rendezvous"
            assert wait_until(lambda: any(tmp_path.glob(joined)), 60)
            time.sleep(1)
            assert process.poll() is None, "".join(x.read_text() for x in tmp_path.glob(logs))
        # A terminal sends Ctrl-C to every process of the group.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        left = set() if wait_until(lambda: not marked(mark), 20) else marked(mark)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert left == set()
    assert process.returncode == code
    assert "Traceback" not in output + errors
    if number != signal.SIGKILL:
        assert not any(tmp_path.glob("dilated-attention-*"))
