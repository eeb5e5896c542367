"""The workflows parse, call sessions that exist, and hold no right that they do not need."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="nox -s tests installs PyYAML")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
NOX = re.compile(r"nox -s ((?:[a-z_]+ ?)+)")


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if any("session" in ast.unparse(d) for d in f.decorator_list)}


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def called(text: str) -> set[str]:
    return {name for found in NOX.findall(text) for name in found.split()}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_session_that_a_workflow_calls_exists(workflow: Path) -> None:
    names = {name for step in steps(workflow) for name in called(step.get("run", ""))}
    assert names
    assert names <= sessions()


def test_the_sessions_are_found() -> None:
    assert {"docs", "figures", "site_browser", "publish_site", "build"} <= sessions()
    assert called("python -m nox -s lint no_such_session -- x") - sessions() == {"no_such_session"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_given_to_single_jobs(workflow: Path) -> None:
    read = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert read["permissions"] == {"contents": "read"}
    for name, job in read["jobs"].items():
        if "permissions" in job:
            assert name == "publish"
            # A run for a pull request must not publish.
            assert "refs/tags/v" in job["if"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_taken_at_a_version(workflow: Path) -> None:
    taken = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert taken
    assert [use for use in taken if not re.search(r"@(release/)?v\d+$", use)] == []


def test_both_workflows_are_there() -> None:
    assert {"pages.yml", "release.yml"} <= {path.name for path in WORKFLOWS}


def test_a_release_publishes_only_where_it_is_switched_on() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert "vars.PUBLISH_PACKAGES == 'true'" in jobs["publish"]["if"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert not re.search(r"password|secrets\.", text)
