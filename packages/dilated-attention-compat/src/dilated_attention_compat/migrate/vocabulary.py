"""The old names a program may contain, each with what is done about it, from the registry."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property

from .._record import Fate, Kind, LegacyRecord
from .._registry import RECORDS

PACKAGE = "dilated_attention_pytorch"
CLASSES: Mapping[str, str] = {
    "ring": "RingMultiheadDilatedAttentionV2",
    "ring_distributed": "RingMultiheadDilatedAttentionV2",
    "improved_distributed": "RingMultiheadDilatedAttentionV2",
}
"""The class that `create_multihead_dilated_attention` makes, by attention type.

A call of an old class becomes a call of the factory, but `isinstance` and annotations need a class.
"""

STILL_THERE = frozenset((f"{PACKAGE}.core", f"{PACKAGE}.core.factory"))
"""Old module paths that the package has kept."""

_FLAGGED = "Flagged: "
_ATTENTION_TYPE = re.compile(r"(\w+)\('(\w+)'\)")


class Treatment(StrEnum):
    """What the migration does with an old name."""

    REPLACE = "replace"
    ADJUST = "adjust"
    FLAG = "flag"


@dataclass(frozen=True)
class OldName:
    """One importable old name.

    Attributes:
        record: What the registry knows of it.
        treatment: `replace` gives uses another name, `adjust` keeps the name and changes imports by
            module path and arguments, `flag` only says what to do.
    """

    record: LegacyRecord
    treatment: Treatment

    @property
    def identifier(self) -> str:
        """The name in import statements."""
        return self.record.identifier

    @property
    def home(self) -> str:
        """Module to import the new name from."""
        return self._target[0]

    @property
    def callee(self) -> str:
        """What calls call."""
        return self._target[1]

    @property
    def reference(self) -> str:
        """What stands for the class where it is not called."""
        rewrite = self.record.rewrite
        if rewrite is not None and rewrite.attention_type:
            return CLASSES[rewrite.attention_type]
        return self.callee

    @property
    def verdict(self) -> str:
        """What becomes of a flagged name, and what to do."""
        record = self.record
        instead = f"use {record.replacement}" if record.replacement else "nothing replaces it"
        if record.fate is Fate.GONE:
            return f"gone; {instead}"
        if record.fate is Fate.COMPAT:
            return f"goes in {record.removed_in}; {instead}"
        return record.codemod.removeprefix(_FLAGGED).rstrip(".")

    @cached_property
    def _target(self) -> tuple[str, str]:
        record = self.record
        target = record.rewrite.target if record.rewrite else record.target
        module, _, attribute = target.partition(":")
        return module, attribute


def _treatment(record: LegacyRecord) -> Treatment:
    if record.rewrite is not None:
        stays = record.rewrite.target.partition(":")[2] == record.identifier
        return Treatment.ADJUST if stays else Treatment.REPLACE
    stays = record.fate in (Fate.KEPT, Fate.CORRECTED)
    moves = stays and not record.codemod.startswith(_FLAGGED)
    return Treatment.ADJUST if moves else Treatment.FLAG


class Vocabulary:
    """The old names of the registry, or of a selection from it.

    Args:
        select: Shell patterns of record names; all records where empty.

    Attributes:
        records: What was selected.
        by_path: Every path that an old name could be imported from.
        modules: Every old module path.
        identifiers: What import statements call the old names.
        words: Every word without which a statement has nothing to do with the old names.

    Raises:
        ValueError: A pattern matches no record.
    """

    def __init__(self, select: Collection[str] = ()) -> None:
        unknown = [p for p in select if not any(fnmatchcase(r.name, p) for r in RECORDS)]
        if unknown:
            raise ValueError(f"no old name matches {', '.join(unknown)}; --list shows all names")
        self.records = tuple(r for r in RECORDS if not select or _matches(r.name, select))
        names = [
            OldName(record, _treatment(record)) for record in self.records if record.is_imported
        ]
        self.by_path: Mapping[str, OldName] = {
            path: name for name in names for path in _paths(name.record)
        }
        self.modules = frozenset(module for name in names for module in name.record.old_modules)
        self.words = frozenset(
            word
            for path, name in self.by_path.items()
            for word in (*path.split("."), name.callee, name.reference)
        )
        self.identifiers = frozenset(name.identifier for name in names)
        self._selected = frozenset(record.name for record in self.records)

    def starred(self, module: str) -> dict[str, OldName]:
        """Return the old names that `from module import *` gave, by identifier."""
        return {
            name.identifier: name
            for path, name in self.by_path.items()
            if path.rpartition(".")[0] == module
        }

    def unserved_type(self, factory: str, attention_type: str) -> LegacyRecord | None:
        """Return the record of an attention type that a factory has no more, if it is selected."""
        record = ATTENTION_TYPES.get((factory, attention_type.removeprefix("multihead_")))
        gone = record is not None and record.fate is Fate.GONE and record.name in self._selected
        return record if gone else None


def _attention_types() -> dict[tuple[str, str], LegacyRecord]:
    types = (record for record in RECORDS if record.kind is Kind.ATTENTION_TYPE)
    matches = ((_ATTENTION_TYPE.fullmatch(record.name), record) for record in types)
    return {(match[1], match[2]): record for match, record in matches if match}


ATTENTION_TYPES: Mapping[tuple[str, str], LegacyRecord] = _attention_types()
"""Records of the attention types, by factory and type."""


def _matches(name: str, select: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in select)


def _paths(record: LegacyRecord) -> list[str]:
    modules = [PACKAGE] if record.exported else []
    return [f"{module}.{record.identifier}" for module in (*modules, *record.old_modules)]
