"""The time budgets of the suite: which tests count for what, and that going over fails a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from support.suite_report import BUDGETS_S, GROUPS, MAIN_JOB, SuiteReport, group_of


class FakeConfig:
    """As much of ``pytest.Config`` as the plugin asks for."""

    def __init__(self, *, enforce: bool, workers: int) -> None:
        self._options = {"--enforce-budgets": enforce, "numprocesses": workers}

    def getoption(self, name: str, default: object = None) -> object:
        return self._options.get(name, default)


def exit_status_after(seconds: float, *, enforce: bool, workers: int = 2) -> int:
    config: Any = FakeConfig(enforce=enforce, workers=workers)
    plugin = SuiteReport(config)
    node = "packages/dilated-attention-pytorch/tests/test_x.py::test_y"
    for when, share in (("setup", 0.25), ("call", 0.5), ("teardown", 0.25)):
        report: Any = SimpleNamespace(nodeid=node, when=when, duration=share * seconds)
        plugin.pytest_runtest_logreport(report)
    session: Any = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    plugin.pytest_sessionfinish(session)
    return int(session.exitstatus)


@pytest.mark.parametrize(
    ("seconds", "enforce", "status"),
    [
        (2 * BUDGETS_S[MAIN_JOB] + 1, True, 1),
        (2 * BUDGETS_S[MAIN_JOB] - 1, True, 0),
        (2 * BUDGETS_S[MAIN_JOB] + 1, False, 0),
    ],
)
def test_two_workers_have_twice_the_budget_between_them(
    seconds: float, enforce: bool, status: int
) -> None:
    assert exit_status_after(seconds, enforce=enforce) == status


def test_one_worker_has_the_budget_to_itself() -> None:
    assert exit_status_after(BUDGETS_S[MAIN_JOB] + 1, enforce=True, workers=0) == 1


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("oracle/tests/test_operator.py::test_a", MAIN_JOB),
        ("packages/dilated-attention-compat/tests/test_b.py::test_b", "legacy"),
        ("packages/dilated-attention-pytorch/tests/test_c.py::test_c", MAIN_JOB),
        ("packages/dilated-attention-pytorch/tests/test_sdpa.py::test_c", "one GPU"),
        ("tests/test_house_files.py::test_d", "docs"),
        ("tests/test_properties.py::test_e", MAIN_JOB),
    ],
)
def test_a_tests_path_decides_its_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_every_group_has_a_budget() -> None:
    assert {group for _, group in GROUPS} | {MAIN_JOB} == set(BUDGETS_S)
