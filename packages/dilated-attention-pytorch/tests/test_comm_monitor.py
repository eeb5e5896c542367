"""The monitor of GPU groups: it tells once, of the first operation that is late, and forgets."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from dilated_attention_pytorch.comm import monitor


class Work:
    def __init__(self) -> None:
        self.done = False

    def __call__(self) -> bool:
        return self.done


def progress(name: str = "ring", step: int = 7) -> Any:
    return SimpleNamespace(
        group=SimpleNamespace(group_name=name),
        rank=0,
        step=step,
        timeout=10.0,
        others=lambda: "; rank 1 is still in step 6",
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(monitor.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def idle() -> monitor.Monitor:
    """One whose thread never looks."""
    return monitor.Monitor(period=1e6)


def test_a_late_operation_is_told_once_with_step_and_peer(
    clock: list[float], idle: monitor.Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Work(), Work()
    idle.watch("exchange 1: key_value rows from rank 1", first, progress())
    idle.watch("exchange 2: key_value rows from rank 2", second, progress())
    clock[0] = 10.0 * monitor.SHARE
    idle.look()
    assert not caplog.records, "not before its share of the timeout"
    clock[0] += 0.1
    for _ in range(2):
        idle.look()
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert told.getMessage() == (
        "rank 0, step 7: unfinished for 5.1 of the group's 10.0 s: exchange 1: key_value rows from "
        "rank 1; rank 1 is still in step 6"
    )


def test_what_never_ends_ends_the_process_unless_pytorch_is_to_let_it_wait(
    clock: list[float],
    idle: monitor.Monitor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: list[float] = []
    monkeypatch.setattr(monitor, "_end", lambda: ends.append(clock[0]))
    monkeypatch.delenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", raising=False)
    idle.watch("exchange 1: key_value rows from rank 1", Work(), progress())
    clock[0] = 10.0 * monitor.LAST
    idle.look()
    assert not ends, "NCCL's watchdog is given its time"
    clock[0] += 0.1
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    idle.look()
    assert not ends
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3")
    idle.look()
    assert ends == clock
    assert caplog.records[-1].levelno == logging.CRITICAL
    assert "from rank 1" in caplog.records[-1].getMessage()


def test_what_is_finished_is_forgotten(
    clock: list[float], idle: monitor.Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    done, late = Work(), Work()
    idle.watch("finished", done, progress())
    idle.watch("late", late, progress())
    done.done = True
    clock[0] = 9.0
    idle.look()
    assert ["late" in record.getMessage() for record in caplog.records] == [True]
    late.done = True
    idle.look()
    assert not idle._posted, "the works are let go of"


def test_each_group_tells_of_its_own_first(
    clock: list[float], idle: monitor.Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    idle.watch("one ring's", Work(), progress("a"))
    idle.watch("another ring's", Work(), progress("b", step=3))
    clock[0] = 9.0
    idle.look()
    assert sorted(record.getMessage().partition(":")[0] for record in caplog.records) == [
        "rank 0, step 3",
        "rank 0, step 7",
    ]


def test_the_thread_looks_by_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_end", lambda: None)
    watching = monitor.Monitor(period=0.01)
    work, late = Work(), progress()
    late.timeout = 1.0
    watching.watch("late", work, late)
    assert watching._thread is not None
    assert watching._thread.daemon
    for _ in range(500):
        if caplog.records:
            break
        watching._thread.join(0.01)
    assert "late" in caplog.records[0].getMessage()
    work.done = True
