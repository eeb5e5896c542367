"""What a test run prints at its end: time per group against its budget, and what was left out.

The time of a group is the sum over its tests of set-up, call and tear-down, divided by the number
of pytest-xdist workers: the share of the run's wall time that the group takes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

MAIN_JOB = "main job"
PYTORCH = "packages/dilated-attention-pytorch/tests/test_"
# The first prefix that a test's path has decides its group; every other test is the main job.
GROUPS = (
    ("packages/dilated-attention-compat/", "legacy"),
    ("tests/test_ring_attention_migration", "legacy"),
    ("tests/test_legacy", "legacy"),
    ("tests/test_migrate", "legacy"),
    (f"{PYTORCH}legacy", "legacy"),
    ("tests/test_house_", "docs"),
    ("tests/test_site", "docs"),
    (f"{PYTORCH}plan", "docs"),
    (f"{PYTORCH}cli_plan", "docs"),
    ("tests/test_cuda_record", "one GPU"),
    ("tests/test_properties_streams", "one GPU"),
    ("tests/test_properties_tables", "one GPU"),
    (f"{PYTORCH}bench", "one GPU"),
    (f"{PYTORCH}cli_bench", "one GPU"),
    (f"{PYTORCH}cuda", "one GPU"),
    (f"{PYTORCH}gluon", "one GPU"),
    (f"{PYTORCH}ops", "one GPU"),
    (f"{PYTORCH}sdpa", "one GPU"),
    (f"{PYTORCH}select", "one GPU"),
    ("tests/test_causal_balance", "ring"),
    ("tests/test_gloo_", "ring"),
    ("tests/test_layouts", "ring"),
    (f"{PYTORCH}cli_verify", "ring"),
    (f"{PYTORCH}dtensor", "ring"),
    (f"{PYTORCH}attention_weights", "drop-in"),
    (f"{PYTORCH}integrations", "drop-in"),
    (f"{PYTORCH}models", "drop-in"),
    ("tests/test_examples", "drop-in"),
    ("tests/test_gigapath", "drop-in"),
)
BUDGETS_S = {
    MAIN_JOB: 240.0,
    "one GPU": 60.0,
    "ring": 120.0,
    "legacy": 60.0,
    "drop-in": 60.0,
    "docs": 60.0,
}
SUITE_BUDGET_S = 600.0


def group_of(nodeid: str) -> str:
    """Return the group that the test ``nodeid`` counts for."""
    return next((name for prefix, name in GROUPS if nodeid.startswith(prefix)), MAIN_JOB)


class SuiteReport:
    """Pytest plugin: sums durations, prints them, and holds them to the budgets when told to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._enforced = bool(config.getoption("--enforce-budgets"))
        self._workers = max(1, int(config.getoption("numprocesses", 0) or 0))
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tests: defaultdict[str, int] = defaultdict(int)
        self._left_out = 0
        self._start = time.perf_counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        group = group_of(report.nodeid)
        self._seconds[group] += report.duration
        self._tests[group] += report.when == "setup"

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._left_out += len(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left_out"] = self._left_out
        elif self._enforced and self.exceeded() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Every worker collects, and so leaves out, the same tests.
        left_out = getattr(node, "workeroutput", {}).get("left_out", 0)
        self._left_out = max(self._left_out, left_out)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("time")
        for group in sorted(self._tests, key=self.group_seconds, reverse=True):
            terminalreporter.write_line(self._line(group))
        wall = self.wall_seconds()
        terminalreporter.write_line(f"whole suite: {wall:.1f} s of {SUITE_BUDGET_S:.0f} s")
        for text in self.exceeded():
            verdict = "FAILED" if self._enforced else "noted"
            terminalreporter.write_line(f"over budget ({verdict}): {text}", red=True)
        if self._left_out:
            terminalreporter.write_line(f"left out: {self._left_out} tests ({self._selection()})")

    def wall_seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self._start

    def group_seconds(self, group: str) -> float:
        """Return the group's seconds, per worker."""
        return self._seconds[group] / self._workers

    def exceeded(self) -> list[str]:
        """Return one line for each budget that the run has gone over."""
        wall = self.wall_seconds()
        lines = [
            f"{group} took {self.group_seconds(group):.1f} s of {budget:.0f} s"
            for group, budget in BUDGETS_S.items()
            if self.group_seconds(group) > budget
        ]
        if wall > SUITE_BUDGET_S:
            lines.append(f"whole suite took {wall:.1f} s of {SUITE_BUDGET_S:.0f} s")
        return lines

    def _selection(self) -> str:
        chosen = ((flag, self._config.getoption(flag)) for flag in ("-m", "-k"))
        return ", ".join(f"{flag} {expression!r}" for flag, expression in chosen if expression)

    def _line(self, group: str) -> str:
        spent = f"{self.group_seconds(group):.1f} s of {BUDGETS_S[group]:.0f} s"
        return f"{group}: {spent} ({self._tests[group]} tests)"
