"""`dilated-attention verify`: sound rings pass, and every planted fault fails and is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dilated_attention_pytorch import dilated_attention, unshard
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.functional import distributed
from dilated_attention_pytorch.kernels import eager

pytest.importorskip("typer")
pytest.importorskip("dilated_attention_oracle")

from dilated_attention_pytorch.cli import memory, verify, verify_checks
from dilated_attention_pytorch.cli.pool import RankFailedError, RankPool
from dilated_attention_pytorch.cli.rank import Rank
from dilated_attention_pytorch.cli.verify_checks import Row
from dilated_attention_pytorch.cli.verify_ranks import VerifySettings, check_rank, ring_sizes

SETTINGS = VerifySettings(length=96, memory_length=1024, timeout=5.0)
DEFINED, ONE_DEVICE, BITS = "rows by definition", "rows of one device", "bits of out and lse"
CHECKS = {"software", "messages", "bandwidth", DEFINED, ONE_DEVICE, BITS, "memory"}


class _Wrong:
    """A posted exchange after which the buffers are spoilt."""

    def __init__(self, work: Any, spoil: Callable[[], None]) -> None:
        self._work, self._spoil = work, spoil

    def ready(self) -> bool:
        return True

    def wait(self) -> None:
        self._work.wait()
        self._spoil()


def spoil(
    patch: pytest.MonkeyPatch, label: str, change: Callable[[list[torch.Tensor], Any], None]
) -> None:
    """After every exchange of a label call `change` with what was sent and what arrived."""
    exchange = ProcessGroupCommunicator.exchange

    def wrong(comm: Any, posted: str, sends: Any, receives: Any) -> Any:
        work = exchange(comm, posted, sends, receives)
        sent, received = ([tensor for _, tensor in pairs] for pairs in (sends, receives))
        return _Wrong(work, lambda: change(sent, received)) if posted == label else work

    patch.setattr(ProcessGroupCommunicator, "exchange", wrong)


def add_one(sent: list[torch.Tensor], received: list[torch.Tensor]) -> None:
    for buffer in received:
        if buffer.numel():
            buffer.view(-1)[0] += 1


def echo(sent: list[torch.Tensor], received: list[torch.Tensor]) -> None:
    for own, buffer in zip(sent, received, strict=False):
        count = min(own.numel(), buffer.numel())
        buffer.view(-1)[:count] = own.view(-1)[:count]


def gather_everything(
    query: Any, key: Any, value: Any, pattern: Any, *, group: Any, **options: Any
) -> Any:
    """Right numbers, but every rank holds all keys and values."""
    whole = (unshard(x, group=group) for x in (query, key, value))
    rows = slice(dist.get_rank(group) * query.shape[1], None)
    return dilated_attention(*whole, pattern, **options)[:, rows][:, : query.shape[1]]


def refuse(*arguments: Any) -> Any:
    raise ArithmeticError("planted [bold]")


def faulty(rank: Rank, fault: str) -> list[Row]:
    """`check_rank` with a fault, on one rank or on all."""
    with pytest.MonkeyPatch.context() as patch:
        odd = rank.index == 1
        # Small tiles, that vanish beside a thousand rows.
        patch.setattr(eager, "BLOCK", 32)
        if fault == "rows change on the way":
            spoil(patch, "key_value", add_one)
        if fault == "gradients change on the way":
            spoil(patch, "gradient", add_one)
        if fault == "own rows for another rank's":
            spoil(patch, "key_value", echo)
        if fault == "another version" and odd:
            patch.setattr(verify_checks, "__version__", "0.0.1")
        if fault == "all keys on every rank":
            patch.setattr(memory, "ring_dilated_attention", gather_everything)
        if fault == "a rank raises" and odd:
            patch.setattr(distributed, "agree", refuse)
        if fault == "order of summation":
            ring = verify_checks.ring_dilated_attention

            def unordered(*arguments: Any, deterministic: bool, **options: Any) -> Any:
                return ring(*arguments, deterministic=False, **options)

            patch.setattr(verify_checks, "ring_dilated_attention", unordered)
        return check_rank(rank, SETTINGS)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    with RankPool(2, (2,), tmp_path_factory.mktemp("ranks")) as started:
        started.start()
        yield started


# The fault, and the checks that it fails.
WRONG_ROWS = [("messages", "2"), (DEFINED, "2"), (ONE_DEVICE, "2")]
FAULTS = {
    "none": [],
    "rows change on the way": [*WRONG_ROWS, (BITS, "1, 2")],
    # A single number is in none of the random rows.
    "gradients change on the way": [(ONE_DEVICE, "2")],
    # Deterministic rings send and receive in turns, so that there is nothing to take instead.
    "own rows for another rank's": WRONG_ROWS,
    "another version": [("software", "2")],
    "all keys on every rank": [("memory", "2")],
    "order of summation": [(BITS, "1, 2")],
    "a rank raises": [("rows", "2"), ("rows", "2")],
}


@pytest.mark.gloo
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_checks_on_every_rank(pool: RankPool, fault: str) -> None:
    first, second = pool.run(faulty, 2, fault)
    # Bandwidths aside, which are the same as well: every rank has the same table.
    assert first == second
    assert [(row.check, row.ring) for row in first if row.passed is False] == FAULTS[fault]
    assert [row.check for row in first if row.passed is None] == ["bandwidth"]
    texts = {row.measured for row in first}
    if fault == "a rank raises":
        assert "rank 1 raised ArithmeticError: planted [bold]" in texts
        assert any(text.startswith("rank 0 raised PeerError") for text in texts)
        assert "memory" not in {row.check for row in first}, "checks go on after a failure"
    else:
        assert {row.check for row in first} == CHECKS


def test_rings_of_every_size() -> None:
    assert [ring_sizes(size) for size in (1, 2, 3, 4, 6)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 6],
    ]


def run_here(*arguments: str) -> Any:
    from typer.testing import CliRunner

    from dilated_attention_pytorch.cli.app import app

    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (([Row("a", "1", "b", "c", True), Row("d", "1", "e")], "t"), 0, "PASS: 1 checks"),
        (([Row("a", "1", "[b]", "c", False), Row("d", "1", "e")], "t"), 1, "FAIL: 1 of 1 checks"),
        (([Row("a", "1", "[b]", "c", False), Row("d", "1", "e")], "t"), 1, "[b]"),
        (RankFailedError("rank 3 died\n[log]"), 1, "rank 3 died\n[log]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_exit_status_says_what_happened(
    found: Any, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(*arguments: Any) -> Any:
        assert arguments == (3, None, 60.0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(verify, "_alone", alone)
    done = run_here("verify", "--ranks", "3")
    assert done.exit_code == code, done.output
    assert words in done.output


PROGRAM = """
import sys
import pytest
sys.path.insert(0, {folder!r})
import test_cli_verify
test_cli_verify.spoil(pytest.MonkeyPatch(), "key_value", test_cli_verify.echo)
from dilated_attention_pytorch.cli import main
sys.argv = ["dilated-attention", "verify", "--length", "96"]
main()
"""


@pytest.mark.gloo
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "sound",
    [pytest.param(True, marks=pytest.mark.slow, id="sound"), pytest.param(False, id="echo")],
)
def test_under_torchrun(sound: bool, tmp_path: Path) -> None:
    program = ["-m", "dilated_attention_pytorch.cli", "verify", "--length", "96"]
    if not sound:
        (tmp_path / "program.py").write_text(PROGRAM.format(folder=str(Path(__file__).parent)))
        program = [str(tmp_path / "program.py")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, *program],
        env=os.environ | {"COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == (0 if sound else 1), done.stdout + done.stderr
    assert done.stdout.count("verify: 2 ranks, gloo") == 1
    assert ("PASS: 8 checks" if sound else "FAIL: 3 of 8 checks") in done.stdout
