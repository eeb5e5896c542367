"""The three packages share one version, everywhere it is written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "dilated-attention-oracle": ROOT / "oracle",
    "dilated-attention-pytorch": ROOT / "packages/dilated-attention-pytorch",
    "dilated-attention-compat": ROOT / "packages/dilated-attention-compat",
}
PROJECTS = {
    name: tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, folder in PACKAGES.items()
}
VERSION = PROJECTS["dilated-attention-pytorch"]["version"]


@pytest.mark.parametrize("name", PACKAGES)
def test_metadata_and_module_state_the_same_version(name: str) -> None:
    module = name.replace("-", "_")
    source = (PACKAGES[name] / "src" / module / "__init__.py").read_text(encoding="utf-8")
    stated = re.findall(r'^__version__(?:: \S+)? = "([^"]+)"$', source, re.M)
    assert stated == [PROJECTS[name]["version"]] == [VERSION]


@pytest.mark.parametrize("name", PACKAGES)
def test_sister_packages_are_required_at_exactly_this_version(name: str) -> None:
    project = PROJECTS[name]
    extras = project.get("optional-dependencies", {}).values()
    requirements = [*project["dependencies"], *(line for extra in extras for line in extra)]
    for requirement in requirements:
        if requirement.startswith("dilated-attention-"):
            assert requirement.endswith(f"=={VERSION}"), requirement


@pytest.mark.parametrize("name", PACKAGES)
def test_the_metadata_that_the_packages_share(name: str) -> None:
    project = PROJECTS[name]
    assert project["name"] == name
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "MIT"
    assert (PACKAGES[name] / "src" / name.replace("-", "_") / "py.typed").is_file()


def test_torch_is_asked_for_alike_everywhere() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in lines
    assert "torch>=2.11" in PROJECTS["dilated-attention-pytorch"]["dependencies"]
    assert "torch>=2.11" in PROJECTS["dilated-attention-compat"]["optional-dependencies"]["torch"]
    assert not PROJECTS["dilated-attention-compat"]["dependencies"]


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, re.M)[0] == VERSION
