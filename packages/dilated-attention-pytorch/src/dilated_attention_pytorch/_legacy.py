"""Deprecated names and old module paths, served from `dilated-attention-compat` until 0.3.0.

This is the only module that reaches the compat package, and it does so on demand: importing
`dilated_attention_pytorch` imports none of it. The registry of the compat package says what exists;
a new deprecated name is one record there and no change here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dilated_attention_compat import (
        RingAttentionDeprecationWarning as RingAttentionDeprecationWarning,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        RingDilatedAttention as RingDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        RingMultiheadDilatedAttention as RingMultiheadDilatedAttention,
    )

_PACKAGE = "dilated_attention_pytorch"
_COMPAT = "dilated_attention_compat"
_GUIDE = "docs/guides/ring-attention-migration.md"


def _compat() -> ModuleType | None:
    """Return the compat package, or None where it is not installed."""
    try:
        return import_module(_COMPAT)
    except ModuleNotFoundError as error:
        if error.name != _COMPAT:
            raise
        return None


def resolve(name: str) -> Any:
    """Return what an attribute missing from the package used to be.

    Args:
        name: The attribute asked for.

    Returns:
        The historical class, the deprecation warning's class, or an old module. None of these
        warns by being imported.

    Raises:
        AttributeError: The name was never there, or the compat package is not installed.
    """
    missing = f"module {_PACKAGE!r} has no attribute {name!r}"
    # What Python itself probes for (`__path__`, `__wrapped__`) is never an old name.
    if name.startswith("_"):
        raise AttributeError(missing, name=name)
    compat = _compat()
    if compat is None:
        raise AttributeError(
            f"{missing}; names of the historical package are in 'dilated-attention-compat', which "
            f"is not installed: install it with its extra 'torch', or see {_GUIDE} for what "
            "replaces them",
            name=name,
        )
    if name == "RingAttentionDeprecationWarning":
        return compat.RingAttentionDeprecationWarning
    record = compat.find(name)
    if record is not None:
        return compat.load(record)
    if f"{_PACKAGE}.{name}" in compat.old_modules():
        return import_module(f"{_PACKAGE}.{name}")
    raise AttributeError(missing, name=name)


def names() -> list[str]:
    """Return the names that `resolve` serves, for the package's `__dir__`."""
    compat = _compat()
    if compat is None:
        return []
    return ["RingAttentionDeprecationWarning", *(record.name for record in compat.RECORDS)]


class _OldModule(ModuleType):
    """A module of the historical package: its names and nothing else."""

    def _records(self) -> dict[str, Any]:
        records = import_module(_COMPAT).old_modules()[self.__name__]
        return {record.name: record for record in records}

    def __getattr__(self, name: str) -> Any:
        records = {} if name.startswith("_") else self._records()
        if name not in records:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name)
        return import_module(_COMPAT).load(records[name])

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._records()})


class _OldModuleLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name, f"Old path, kept until 0.3.0; see {_GUIDE}.")

    def exec_module(self, module: ModuleType) -> None:
        """Say what a star import takes; the names themselves are loaded when asked for."""
        module.__dict__["__all__"] = sorted(module._records())


class _OldModuleFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        compat = _compat()
        if compat is None or fullname not in compat.old_modules():
            return None
        return ModuleSpec(fullname, _OldModuleLoader(), origin="dilated-attention-compat")


class _Package(ModuleType):
    """The package, whose functions an old module of the same name does not replace.

    `ring_dilated_attention` is a public function now and was a module once. Importing a submodule
    binds it in its package, so that one old import anywhere in a program would take the function
    away from everybody else.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, _OldModule) and name in vars(self)):
            super().__setattr__(name, value)


def install_finder() -> None:
    """Make the old module paths importable; called once by the package itself."""
    sys.modules[_PACKAGE].__class__ = _Package
    if not any(isinstance(finder, _OldModuleFinder) for finder in sys.meta_path):
        # Last: a module that exists is found first, so this costs nothing otherwise.
        sys.meta_path.append(_OldModuleFinder())
