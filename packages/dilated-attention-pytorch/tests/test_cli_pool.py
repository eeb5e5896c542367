"""The pool of processes: answers, reports, and ranks that raise or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dilated_attention_pytorch.cli.pool import RankFailedError, RankPool
from dilated_attention_pytorch.cli.rank import Rank

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(120)]


def identify(rank: Rank, word: str) -> tuple[str, int, int, int]:
    for i in range(3):
        rank.report((rank.index, i))
    return word, rank.index, rank.ring_size, os.getpid()


def held_back(rank: Rank) -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def tell_and_sleep(rank: Rank) -> None:
    rank.report(os.getpid())
    time.sleep(600)


def raise_on(rank: Rank, index: int) -> None:
    if rank.index == index:
        raise ArithmeticError("a planted error")
    time.sleep(600)


def die_on(rank: Rank, index: int) -> None:
    if rank.index == index:
        os.write(2, b"a last word")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        # The state follows the name, which is in parentheses and may hold anything.
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_rank_answers_and_the_first_reports(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    with RankPool(2, (1, 2), tmp_path) as pool:
        pool.start()
        two = pool.run(identify, 2, "hello", on_report=reports.append)
        one = pool.run(identify, 1, "again")
        assert [answer[:3] for answer in two] == [("hello", 0, 2), ("hello", 1, 2)]
        assert one == [("again", 0, 1, two[0][3])]
        assert reports == [(0, 0), (0, 1), (0, 2)]
        # Ctrl-C is the parent's alone.
        assert pool.run(held_back, 2) == [{signal.SIGINT}] * 2
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        pids = {answer[3] for answer in two}
        assert len(pids | {os.getpid()}) == 3
        assert all(running(pid) for pid in pids)
        with pytest.raises(RankFailedError, match=r"(?s)rank 1 raised:.*a planted error"):
            pool.run(raise_on, 2, 1)
    assert not any(running(pid) for pid in pids)


def test_a_rank_that_dies_is_named_at_once(tmp_path: Path) -> None:
    with RankPool(2, (2,), tmp_path) as pool:
        pool.start()
        start = time.monotonic()
        with pytest.raises(RankFailedError, match=r"(?s)rank 1 died with exit code -9.*last word"):
            pool.run(die_on, 2, 1)
        # Far below the group's timeout: it is the parent that notices.
        assert time.monotonic() - start < 30


def test_a_rank_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    # At a moment when no rank writes to the parent, which would end it as well.
    with subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    end = time.monotonic() + 20
    while running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    left = running(pid)
    if left:
        os.kill(pid, signal.SIGKILL)
    assert not left


if __name__ == "__main__":
    with RankPool(1, (1,), Path(sys.argv[1])) as alone:
        alone.start()
        alone.run(tell_and_sleep, 1, on_report=lambda pid: print(pid, flush=True))
