"""Every public name is on a reference page, and every command on the page of commands."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from functools import reduce
from pathlib import Path
from types import ModuleType

import pytest

import dilated_attention_compat
import dilated_attention_oracle
import dilated_attention_pytorch
from dilated_attention_pytorch import functional, integrations, models

ROOT = Path(__file__).parents[1]
PAGES = {page: page.read_text(encoding="utf-8") for page in ROOT.glob("docs/reference/*.md")}
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.M)
DIRECTIVES = [name for text in PAGES.values() for name in DIRECTIVE.findall(text)]
PACKAGES = (
    dilated_attention_pytorch,
    dilated_attention_oracle,
    dilated_attention_compat,
    functional,
    integrations,
    models,
)


def resolve(path: str) -> object:
    """The object that a directive names: an attribute of the shortest path that has it."""
    parts = path.split(".")
    for count in range(1, len(parts)):
        try:
            return reduce(getattr, parts[count:], importlib.import_module(".".join(parts[:count])))
        except AttributeError:
            continue
        except ModuleNotFoundError as error:
            if error.name is None or path.startswith(error.name):
                raise
            # The module needs a package that is not here; no public name of ours is in it.
            return error.name
    return importlib.import_module(path)


def public_names(package: ModuleType) -> list[str]:
    """Classes and functions of a package's namespace that are the project's own."""
    return [
        name
        for name in dir(package)
        if not name.startswith("_")
        and (inspect.isclass(value := getattr(package, name)) or inspect.isfunction(value))
        and value.__module__.startswith("dilated_attention")
    ]


def undocumented(package: ModuleType, directives: list[str]) -> list[str]:
    """Names whose object is on no page, under this or another of its paths."""
    shown = {id(resolve(path)) for path in directives}
    return [name for name in public_names(package) if id(getattr(package, name)) not in shown]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_on_a_page(package: ModuleType) -> None:
    assert len(public_names(package)) > 5
    assert undocumented(package, DIRECTIVES) == []


def test_a_name_that_is_on_no_page_is_found() -> None:
    name = "dilated_attention_pytorch.dilated_attention"
    kept = [path for path in DIRECTIVES if path != name]
    assert undocumented(dilated_attention_pytorch, kept) == ["dilated_attention"]


def test_no_name_is_on_two_pages() -> None:
    assert [path for path, count in Counter(DIRECTIVES).items() if count > 1] == []


def test_every_reference_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"reference/{page.name}" in navigation


def test_every_command_has_a_section() -> None:
    typer = pytest.importorskip("typer", reason="the extra [cli] installs typer")
    from dilated_attention_pytorch.cli.app import app

    commands = typer.main.get_command(app).commands
    text = PAGES[ROOT / "docs/reference/command-line.md"]
    sections = set(re.findall(r"^## `dilated-attention ([\w-]+)`$", text, re.M))
    assert sections == set(commands)
    for name, command in commands.items():
        body = text.split(f"## `dilated-attention {name}`\n")[1].split("\n## ")[0]
        shown = set(re.findall(r"--[\w-]+", body))
        missing = [
            parameter.name
            for parameter in command.params
            if parameter.name != "help"
            and any(flag.startswith("--") for flag in parameter.opts)
            and not shown & {*parameter.opts, *parameter.secondary_opts}
        ]
        assert missing == [], f"the section of {name} lacks options"
