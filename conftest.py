"""Settings that every test folder shares."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from support.gpu_shares import shares as shares
from support.suite_report import SuiteReport

ROOT = Path(__file__).parent
# GPU machines run `pytest -m cuda` with pytest alone.
HAS_HYPOTHESIS = importlib.util.find_spec("hypothesis") is not None
NEEDS_HYPOTHESIS = re.compile(
    r"^\s*(?:from|import) (?:hypothesis|dilated_attention_oracle\.(?:strategies|conformance))\b",
    re.M,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--enforce-budgets",
        action="store_true",
        help="fail the run when the main job or the whole suite takes longer than its budget",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Processes that tests start see the same packages as the tests do.
    paths = [str(ROOT / path) for path in config.getini("pythonpath")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    if HAS_HYPOTHESIS:
        _load_hypothesis_profile()
    config.pluginmanager.register(SuiteReport(config), "suite-report")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if HAS_HYPOTHESIS or collection_path.suffix != ".py":
        return None
    return bool(NEEDS_HYPOTHESIS.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_report_header() -> str | None:
    return (
        None if HAS_HYPOTHESIS else "hypothesis is not installed: files that need it are left out"
    )


def _load_hypothesis_profile() -> None:
    from hypothesis import settings

    settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
    settings.register_profile(
        "ci", max_examples=50, deadline=None, print_blob=True, derandomize=True, database=None
    )
    settings.register_profile("nightly", max_examples=5000, deadline=None, print_blob=True)
    settings.load_profile(
        os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
    )
