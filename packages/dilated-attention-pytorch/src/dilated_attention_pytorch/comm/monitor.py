"""A thread that says which step and which ranks NCCL waits for, before its watchdog ends the job.

On a GPU a wait for a peer that died blocks no Python code that could raise: the stream waits, then
the host at its next synchronization, until the watchdog ends the process without naming a rank. It
may fail to: a watchdog whose driver does not answer was seen to leave processes behind. Then the
monitor ends the process, unless PyTorch was told to let it wait.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .progress import Progress

# Of the group's timeout; what is left is for a reader, or a handler that ends the process sooner.
SHARE: Final = 0.5
# Of the timeout as well; NCCL's watchdog acts at 1, and may write its records before it ends.
LAST: Final = 1.5
_PERIOD_S: Final = 0.25
_logger = logging.getLogger("dilated_attention_pytorch")


@dataclass(eq=False, slots=True)
class _Posted:
    """An operation that the device has not finished."""

    words: str
    over: Callable[[], bool]
    progress: Progress
    step: int
    timeout: float
    since: float
    told: bool = False


def _may_end() -> bool:
    """Whether PyTorch may end this process for a group that failed; 0 tells it not to."""
    names = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")
    return "0" not in [os.environ.get(name) for name in names]


def _end() -> None:
    # Whatever an orderly exit would wait for may wait for the device.
    os._exit(1)


class Monitor:
    """Watches operations in the order in which they were posted; its thread starts with the first.

    Args:
        period: seconds between looks.
    """

    def __init__(self, period: float = _PERIOD_S) -> None:
        self._period = period
        self._posted: list[_Posted] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def watch(self, words: str, over: Callable[[], bool], progress: Progress) -> None:
        """Log an error if an operation is not over after `SHARE` of the group's timeout.

        Args:
            words: what is waited for, from whom.
            over: whether it is; asked by the thread, and must not wait.
            progress: where this rank is.
        """
        one = _Posted(words, over, progress, progress.step, progress.timeout, time.monotonic())
        with self._lock:
            self._posted.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def look(self) -> None:
        """Forget what is finished; tell of what is late, once, and of the first of each group.

        What is not over after `LAST` of the timeout ends the process.
        """
        with self._lock:
            self._posted = [one for one in self._posted if not one.over()]
            first = {str(one.progress.group.group_name): one for one in reversed(self._posted)}
        for one in first.values():
            waited = time.monotonic() - one.since
            if not one.told and waited > SHARE * one.timeout:
                one.told = True
                _logger.error(
                    "rank %d, step %d: unfinished for %.1f of the group's %.1f s: %s%s",
                    one.progress.rank,
                    one.step,
                    waited,
                    one.timeout,
                    one.words,
                    one.progress.others(),
                )
            if waited > LAST * one.timeout and _may_end():
                _logger.critical(
                    "rank %d, step %d: not over after %.1f s, and NCCL's watchdog has not ended "
                    "this process (group's timeout %.1f s): ending it: %s",
                    one.progress.rank,
                    one.step,
                    waited,
                    one.timeout,
                    one.words,
                )
                _end()

    def _run(self) -> None:
        while True:
            time.sleep(self._period)
            self.look()


MONITOR: Final = Monitor()
