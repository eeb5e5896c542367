"""No deprecated name outlives its version, and the removal of the names stays one command."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dilated_attention_pytorch as package
from dilated_attention_compat import RECORDS, Fate, LegacyRecord

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dilated_attention_pytorch"
DEPRECATED = [record for record in RECORDS if record.fate is Fate.COMPAT]


def order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def is_expired(record: LegacyRecord) -> bool:
    return order(package.__version__) >= order(record.removed_in)


EXPIRED = [record for record in DEPRECATED if is_expired(record)]


def statements(record: LegacyRecord) -> list[str]:
    modules = [PACKAGE] if record.exported else []
    return [f"from {m} import {record.identifier}" for m in (*modules, *record.old_modules)]


@pytest.mark.parametrize("record", DEPRECATED, ids=lambda record: record.name)
def test_a_deprecated_name_is_served_until_its_version_and_no_longer(record: LegacyRecord) -> None:
    for statement in statements(record):
        if is_expired(record):
            with pytest.raises(ImportError, match=r"gone since v|cannot import name"):
                exec(statement, {})
        else:
            exec(statement, {})


def test_the_library_asks_for_compat_only_while_it_serves_names() -> None:
    path = ROOT / "packages/dilated-attention-pytorch/pyproject.toml"
    asks = "dilated-attention-compat" in path.read_text(encoding="utf-8")
    assert asks == (len(EXPIRED) < len(DEPRECATED))


@pytest.fixture(scope="module")
def removal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("removal", ROOT / "tools/removal/remove.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules["removal"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(bool(EXPIRED), reason="the removal has been carried out")
def test_the_removal_finds_everything_that_it_edits(removal: ModuleType) -> None:
    """Nothing is written: ``nox -s rehearse_removal`` carries it out in a copy."""
    version = DEPRECATED[0].removed_in
    edits = removal.Edits(ROOT)
    removal.bump(edits, version)
    removal.remove(edits, version)
    for path, text in edits.texts.items():
        assert text != (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else text
        if path.endswith(".py"):
            ast.parse(text)
    assert all((ROOT / path).is_file() for path in edits.deleted)
    served = [
        text for path, text in edits.texts.items() if "/src/dilated_attention_pytorch/" in path
    ]
    assert not any("dilated_attention_compat" in text for text in served)


def test_the_table_of_removed_names_has_them_all(removal: ModuleType) -> None:
    table = removal.removed("0.3.0")
    for record in DEPRECATED:
        if record.exported:
            assert record.replacement in table[f"{PACKAGE}.{record.identifier}"]
        for module in record.old_modules:
            path = f"{module}.{record.identifier}"
            said = table[path] if module in removal.STILL_THERE else table[module]
            assert f"{record.identifier} is gone since v0.3.0: " in said
    assert all("\n" not in said and "\t" not in said for said in table.values())
    assert len(removal.removed("0.2.1")) < len(table)
