"""All records of the historical package's names, and how to look them up."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._record import LegacyRecord
from ._records import (
    arguments,
    block_sparse,
    configs,
    core,
    experiments,
    factory,
    improved,
    ring,
    utils,
)

RECORDS: tuple[LegacyRecord, ...] = (
    *ring.RECORDS,
    *block_sparse.RECORDS,
    *improved.RECORDS,
    *configs.RECORDS,
    *experiments.RECORDS,
    *factory.RECORDS,
    *core.RECORDS,
    *utils.RECORDS,
    *arguments.RECORDS,
)

_BY_NAME = {record.name: record for record in RECORDS}
_EXPORTED = {record.identifier: record for record in RECORDS if record.exported}


def find(name: str) -> LegacyRecord | None:
    """Return the record of an old name, or None where there is none."""
    return _BY_NAME.get(name)


def require(name: str) -> LegacyRecord:
    """Return the record of an old name that must have one.

    Raises:
        KeyError: There is none.
    """
    return _BY_NAME[name]


def exported() -> dict[str, LegacyRecord]:
    """Return the records of what the package itself exported, by identifier."""
    return dict(_EXPORTED)


def old_modules() -> dict[str, tuple[LegacyRecord, ...]]:
    """Return the old module paths, each with the records of the names it held."""
    modules: dict[str, tuple[LegacyRecord, ...]] = {}
    for record in RECORDS:
        for module in record.old_modules:
            modules[module] = (*modules.get(module, ()), record)
    return modules


def load(record: LegacyRecord) -> Any:
    """Import the object that behaves as a record's name behaved.

    Args:
        record: A record with a `historical` object.

    Returns:
        The class or function itself; importing it warns of nothing, using it does.

    Raises:
        LookupError: Nothing in this package behaves as that name behaved.
    """
    if not record.historical:
        raise LookupError(f"nothing here behaves as {record.name} did; see {record.guide}")
    module, _, attribute = record.historical.partition(":")
    return getattr(import_module(module), attribute)
