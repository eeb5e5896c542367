"""The files around the code: forms, citation, hooks, changelog fragments, the navigation."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="nox -s tests installs PyYAML")

ROOT = Path(__file__).parents[1]
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
# What the site has to have, as pages under docs/.
ASKED = (
    *("index.md", "start.md", "numerics.md", "performance.md", "design.md", "changelog.md"),
    *(f"guides/{name}.md" for name in ("choosing", "one-gpu", "many-gpus", "troubleshooting")),
    *("guides/torchscale-gigapath.md", "guides/ring-attention-migration.md", "explorer/index.md"),
    *(f"theory/{x}.md" for x in ("introduction", "operator", "merge", "backward", "ring", "cost")),
    *(f"reference/{x}.md" for x in ("functions", "patterns", "modules", "command-line", "errors")),
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def changelog() -> ModuleType:
    spec = importlib.util.spec_from_file_location("changelog", ROOT / "tools/changelog.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version() -> str:
    project = tomllib.loads(text("packages/dilated-attention-pytorch/pyproject.toml"))["project"]
    return str(project["version"])


def test_every_page_that_is_asked_for_is_in_the_navigation() -> None:
    navigation = re.findall(r": ([\w/-]+\.md)$", text("mkdocs.yml"), re.M)
    assert [page for page in ASKED if page not in navigation] == []
    assert [page for page in navigation if not (ROOT / "docs" / page).is_file()] == []


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_github_shows(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    assert all(part["attributes"]["label"] for part in asked)


def test_a_report_of_a_bug_brings_what_doctor_prints() -> None:
    form = yaml.safe_load(text(".github/ISSUE_TEMPLATE/bug.yml"))
    required = {
        part["id"]: part for part in form["body"] if part.get("validations", {}).get("required")
    }
    assert "dilated-attention doctor" in required["doctor"]["attributes"]["label"]
    assert "program" in required


def test_the_citation_is_of_this_version_and_of_both_papers() -> None:
    found: dict[str, Any] = yaml.safe_load(text("CITATION.cff"))
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == version()
    assert found["license"] == "MIT"
    papers = [one["identifiers"][0]["value"] for one in found["references"]]
    assert papers == ["arXiv:2307.02486", "arXiv:2310.01889"]


def test_hooks_use_the_projects_pins() -> None:
    pins = text("constraints.txt").splitlines()
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    asked = [pin for hook in hooks for pin in hook.get("additional_dependencies", ())]
    assert asked
    assert [pin for pin in asked if pin not in pins] == []


def test_fragments_have_names_and_texts_that_can_be_moved() -> None:
    assert changelog().main(["--check"]) == 0


CHANGELOG = """# Changelog

## 0.2.1 - unreleased

### Added

- One.

### Fixed

- Two.

## 0.2.0

### Added

- Old.
"""


def test_fragments_are_moved_into_the_newest_section(tmp_path: Path) -> None:
    (tmp_path / "changelog.d").mkdir()
    for name, item in (("b.added", "Three."), ("a.added", "Four."), ("c.changed", "Five.")):
        (tmp_path / f"changelog.d/{name}.md").write_text(f"- {item}\n", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    assert changelog().main([], tmp_path) == 0
    moved = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    expected = CHANGELOG.replace("- One.\n", "- One.\n- Four.\n- Three.\n", 1).replace(
        "### Fixed", "### Changed\n\n- Five.\n\n### Fixed", 1
    )
    assert moved == expected
    assert list((tmp_path / "changelog.d").iterdir()) == []
    assert changelog().main([], tmp_path) == 0
    assert (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("name", "item"),
    [("a.md", "- x"), ("a.new.md", "- x"), ("a.added.txt", "- x"), ("a.fixed.md", "x")],
)
def test_a_fragment_that_cannot_be_moved_is_refused(
    name: str, item: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d" / name).write_text(item, encoding="utf-8")
    assert changelog().main(["--check"], tmp_path) == 1
    assert name in capsys.readouterr().err
