"""What became of the historical names and module paths, until 0.3.0.

This is the only module that reaches `dilated-attention-compat`, and it does so on demand: importing
`dilated_attention_pytorch` imports none of it. The records of the compat package say what existed
and what became of it; a new old name is one record there and no change here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dilated_attention_compat import (  # type: ignore[deprecated]
        BlockSparseRingDilatedAttention as BlockSparseRingDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        BlockSparseRingDistributedDilatedAttention as BlockSparseRingDistributedDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        BlockSparseRingMultiheadDilatedAttention as BlockSparseRingMultiheadDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DilatedAttentionConfig as DilatedAttentionConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DistributedConfig as DistributedConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DistributedImprovedDilatedAttention as DistributedImprovedDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DistributedImprovedMultiheadDilatedAttention as DistributedImprovedMultiheadDilatedAttention,  # noqa: E501
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DistributedSparseConfig as DistributedSparseConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        DistributedSparsePattern as DistributedSparsePattern,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        MemoryPoolConfig as MemoryPoolConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        MultiheadConfig as MultiheadConfig,
    )
    from dilated_attention_compat import PatternConfig as PatternConfig  # type: ignore[deprecated]
    from dilated_attention_compat import PatternType as PatternType  # type: ignore[deprecated]
    from dilated_attention_compat import (  # type: ignore[deprecated]
        RingAttentionConfig as RingAttentionConfig,
    )
    from dilated_attention_compat import (
        RingAttentionDeprecationWarning as RingAttentionDeprecationWarning,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        RingDilatedAttention as RingDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        RingMultiheadDilatedAttention as RingMultiheadDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        SparseAttentionConfig as SparseAttentionConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        SparsePatternConfig as SparsePatternConfig,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        UnfoldRingDilatedAttention as UnfoldRingDilatedAttention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        create_adaptive_sparse_attention as create_adaptive_sparse_attention,
    )
    from dilated_attention_compat import (  # type: ignore[deprecated]
        create_block_sparse_attention as create_block_sparse_attention,
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
        The historical object, the deprecation warning's class, or an old module. None of these
        warns by being imported.

    Raises:
        AttributeError: The name was never there, is gone (the message says what to use instead),
            or the compat package is not installed.
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
    if f"{_PACKAGE}.{name}" in compat.old_modules() and name not in compat.exported():
        return import_module(f"{_PACKAGE}.{name}")
    return _served(_PACKAGE, name)


def resolve_in(module: str, name: str) -> Any:
    """Return what an attribute missing from a module that had old names used to be.

    Args:
        module: Full name of the module.
        name: The attribute asked for.

    Returns:
        The object that bears the name today, or the historical one.

    Raises:
        AttributeError: The name was never there, or is gone (the message says what to use
            instead).
    """
    if name.startswith("_") or _compat() is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    return _served(module, name)


def names(module: str = _PACKAGE) -> list[str]:
    """Return the deprecated names that a module serves, for its `__dir__`.

    Args:
        module: Full name of the package or of a module that had old names.
    """
    if _compat() is None:
        return []
    served = [name for name, record in _records(module).items() if record.fate == "compat"]
    return ["RingAttentionDeprecationWarning", *served] if module == _PACKAGE else served


def attention_type_advice(function: str, name: object) -> str:
    """Return what to say of an attention type that a factory function no longer knows.

    Args:
        function: Name of the factory function.
        name: The type asked for.

    Returns:
        A sentence; empty where there is nothing to say.
    """
    compat = _compat()
    record = compat and compat.find(f"{function}({name!r})")
    return record.advice if record is not None and record.fate == "gone" else ""


def _records(module: str) -> Mapping[str, Any]:
    """Return the records of a module's old names, by identifier."""
    compat = import_module(_COMPAT)
    if module == _PACKAGE:
        exported: Mapping[str, Any] = compat.exported()
        return exported
    return {record.identifier: record for record in compat.old_modules().get(module, ())}


def _served(module: str, name: str) -> Any:
    record = _records(module).get(name)
    missing = f"module {module!r} has no attribute {name!r}"
    if record is None:
        raise AttributeError(missing, name=name)
    if record.fate == "gone":
        raise AttributeError(f"{missing}; {record.advice}", name=name)
    if record.fate == "compat":
        return import_module(_COMPAT).load(record)
    home, _, attribute = record.target.partition(":")
    return getattr(import_module(home), attribute)


class _OldModule(ModuleType):
    """A module of the historical package: its names and nothing else."""

    def __getattr__(self, name: str) -> Any:
        return resolve_in(self.__name__, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_still_there(self.__name__)})


def _still_there(module: str) -> list[str]:
    return sorted(name for name, record in _records(module).items() if record.fate != "gone")


class _OldModuleLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name, f"Old path, kept until 0.3.0; see {_GUIDE}.")

    def exec_module(self, module: ModuleType) -> None:
        """Say what a star import takes; the names themselves are loaded when asked for."""
        module.__dict__["__all__"] = _still_there(module.__name__)


class _OldModuleFinder(MetaPathFinder):
    """Find old module paths, and say what became of a name that is gone.

    `from module import name` drops the message of an AttributeError and asks the finders for a
    submodule of that name, where `module` is a package. So old modules are packages, and what is
    gone answers here.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        compat = _compat()
        if compat is None:
            return None
        if fullname in compat.old_modules():
            origin = "dilated-attention-compat"
            return ModuleSpec(fullname, _OldModuleLoader(), origin=origin, is_package=True)
        parent, _, name = fullname.rpartition(".")
        record = _records(parent).get(name)
        if record is not None and record.fate == "gone":
            raise ImportError(
                f"cannot import name {name!r} from {parent!r}; {record.advice}", name=fullname
            )
        return None


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
