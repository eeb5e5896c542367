"""Names and module paths that earlier versions had: what became of them.

`removed.tsv` holds a line for each: what was imported, and what to say. Nothing is served.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.resources import files
from types import ModuleType
from typing import NoReturn

_PACKAGE = "dilated_attention_pytorch"


@cache
def _advice() -> Mapping[str, str]:
    text = files(_PACKAGE).joinpath("removed.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t", 1) for line in text.splitlines())


def resolve(name: str) -> NoReturn:
    """Say what became of an attribute that the package does not have.

    Raises:
        AttributeError: Always.
    """
    resolve_in(_PACKAGE, name)


def resolve_in(module: str, name: str) -> NoReturn:
    """Say what became of an attribute that a module does not have.

    Args:
        module: Full name of the module.
        name: The attribute asked for.

    Raises:
        AttributeError: Always.
    """
    missing = f"module {module!r} has no attribute {name!r}"
    # What Python itself probes for (`__path__`, `__wrapped__`) is never an old name.
    advice = "" if name.startswith("_") else _advice().get(f"{module}.{name}", "")
    raise AttributeError(f"{missing}; {advice}" if advice else missing, name=name)


def names(module: str = _PACKAGE) -> list[str]:
    """Return the old names that a module serves: none."""
    return []


def attention_type_advice(function: str, name: object) -> str:
    """Return what to say of an attention type that a factory function no longer knows.

    Args:
        function: Name of the factory function.
        name: The type asked for.

    Returns:
        A sentence; empty where there is nothing to say.
    """
    return _advice().get(f"{function}({name!r})", "")


class _RemovedFinder(MetaPathFinder):
    """Give the advice where `from package import name` would drop an AttributeError's message."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{_PACKAGE}.") and fullname in _advice():
            # A ModuleNotFoundError would be swallowed by `from package import name`.
            raise ImportError(f"no {fullname!r}: {_advice()[fullname]}", name=fullname)
        return None


def install_finder() -> None:
    """Make imports of removed names say what became of them; called once by the package itself."""
    if not any(isinstance(finder, _RemovedFinder) for finder in sys.meta_path):
        # Last: a module that exists is found first, so this costs nothing otherwise.
        sys.meta_path.append(_RemovedFinder())
