"""Every record of the registry is known to the migration, which does what the record says."""

from __future__ import annotations

import ast

import pytest

pytest.importorskip("libcst")

import dilated_attention_compat as compat
from dilated_attention_compat.migrate.instances import LOST_ARGUMENTS, forward_parameters
from dilated_attention_compat.migrate.source import Migration, Outcome, migrate_source
from dilated_attention_compat.migrate.todo import MARK
from dilated_attention_compat.migrate.vocabulary import (
    ATTENTION_TYPES,
    PACKAGE,
    STILL_THERE,
    Treatment,
    Vocabulary,
)

EVERYTHING = Vocabulary()
IMPORTED = [record for record in compat.RECORDS if record.is_imported]
WITH_SNIPPETS = [record for record in IMPORTED if record.before]
REWRITTEN = [record for record in WITH_SNIPPETS if record.rewrite]
FLAGGED = [record for record in WITH_SNIPPETS if not record.rewrite]
GONE = [record for record in IMPORTED if record.fate is compat.Fate.GONE]
DROPPED = [
    (record, parameter)
    for record in IMPORTED
    if record.rewrite
    for parameter in record.rewrite.dropped
]


def migrate(source: str, vocabulary: Vocabulary = EVERYTHING) -> Migration:
    return migrate_source(source.encode(), vocabulary)


def name_of(record: compat.LegacyRecord) -> str:
    return record.name


def paths(record: compat.LegacyRecord) -> list[str]:
    return [*([PACKAGE] if record.exported else []), *record.old_modules]


@pytest.mark.parametrize("record", REWRITTEN, ids=name_of)
def test_the_rewrite_of_before_is_after(record: compat.LegacyRecord) -> None:
    migration = migrate(record.before)
    assert migration.outcome is Outcome.MIGRATED
    # A rewrite keeps the user's line breaks; the record's snippet is formatted anew.
    assert ast.unparse(ast.parse(migration.source)) == ast.unparse(ast.parse(record.after))
    assert migrate(record.after).outcome is Outcome.LEFT


@pytest.mark.parametrize("record", FLAGGED, ids=name_of)
def test_what_has_no_rewrite_is_flagged(record: compat.LegacyRecord) -> None:
    migration = migrate(record.before)
    assert migration.outcome is Outcome.FLAGGED
    assert {finding.name for finding in migration.findings} == {record.name}
    lines = [line for line in migration.source.decode().splitlines(True) if MARK not in line]
    assert "".join(lines) == record.before
    assert migrate(record.after).outcome is Outcome.LEFT


@pytest.mark.parametrize("record", GONE, ids=name_of)
@pytest.mark.parametrize("use", ["", "thing = {}\n", "thing = {}(1)\n", "class A({}): ...\n"])
def test_what_is_gone_is_flagged_by_every_path(record: compat.LegacyRecord, use: str) -> None:
    for path in paths(record):
        source = f"from {path} import {record.identifier}\n{use.format(record.identifier)}"
        migration = migrate(source)
        assert {(f.name, f.outcome) for f in migration.findings} == {(record.name, Outcome.FLAGGED)}
        assert record.replacement in migration.source.decode()


@pytest.mark.parametrize("record", IMPORTED, ids=name_of)
def test_every_path_of_every_record_is_known(record: compat.LegacyRecord) -> None:
    assert paths(record)
    for path in paths(record):
        assert EVERYTHING.by_path[f"{path}.{record.identifier}"].record is record


def test_no_old_module_path_is_missed() -> None:
    assert set(compat.old_modules()) == EVERYTHING.modules
    assert set(compat.exported()) == set(EVERYTHING.starred(PACKAGE))


@pytest.mark.parametrize(("record", "parameter"), DROPPED, ids=lambda x: getattr(x, "name", x))
def test_every_dropped_argument_is_dropped(record: compat.LegacyRecord, parameter: str) -> None:
    assert record.rewrite is not None
    path = paths(record)[0]
    first = '"ring", ' if record.rewrite.parameters[0] == "attention_type" else ""
    source = f"from {path} import {record.identifier} as f\nf({first}{parameter}=x)\n"
    migration = migrate(source)
    assert migration.outcome is Outcome.MIGRATED
    assert parameter not in migration.source.decode()


@pytest.mark.parametrize("record", [record for record in IMPORTED if record.rewrite], ids=name_of)
def test_positional_arguments_are_the_historical_ones(record: compat.LegacyRecord) -> None:
    """Arguments named after their parameter end up at the parameter of their name."""
    rewrite = record.rewrite
    assert rewrite is not None
    if rewrite.parameters[0] == "attention_type":
        return
    renamed = dict(rewrite.renamed)
    parameters = [p for p in rewrite.parameters if p not in rewrite.flagged]
    count = next(
        (i for i, p in enumerate(rewrite.parameters) if p in rewrite.flagged), len(parameters)
    )
    call = ", ".join(rewrite.parameters[:count])
    path = record.old_modules[0]
    migration = migrate(
        f"from {path} import {record.identifier}\nf = {record.identifier}({call})\n"
    )
    assert migration.outcome is Outcome.MIGRATED
    kept = [p for p in rewrite.parameters[:count] if p not in rewrite.dropped]
    if EVERYTHING.by_path[f"{path}.{record.identifier}"].treatment is Treatment.REPLACE:
        written = [f"{renamed.get(p, p)}={p}" for p in kept]
        written = [f'"{rewrite.attention_type}"', *written] if rewrite.attention_type else written
    else:
        after_dropped = False
        written = []
        for parameter in rewrite.parameters[:count]:
            after_dropped |= parameter in rewrite.dropped
            if parameter in kept:
                written.append(f"{parameter}={parameter}" if after_dropped else parameter)
    assert f"({', '.join(written)})" in migration.source.decode()


@pytest.mark.parametrize(
    "factory", ["create_dilated_attention", "create_multihead_dilated_attention"]
)
def test_every_attention_type_is_left_or_flagged_by_its_fate(factory: str) -> None:
    types = [(name, r) for (function, name), r in ATTENTION_TYPES.items() if function == factory]
    assert len(types) == 10
    for name, record in types:
        for spelling in (name, f"multihead_{name}"):
            source = f"from {PACKAGE} import {factory}\nf = {factory}({spelling!r})\n"
            outcome = migrate(source).outcome
            gone = record.fate is compat.Fate.GONE
            assert outcome is (Outcome.FLAGGED if gone else Outcome.LEFT), spelling


def test_arguments_of_forward_that_are_gone_are_flagged() -> None:
    seen = 0
    for record in compat.RECORDS:
        owner, _, argument = record.name.partition(".forward(")
        if not argument or record.fate is not compat.Fate.GONE:
            continue
        argument = argument.rstrip(")")
        assert argument in LOST_ARGUMENTS
        name = next(n for n in EVERYTHING.by_path.values() if n.identifier == owner)
        assert argument in forward_parameters(name), record.name
        path = name.record.old_modules[0]
        source = f"from {path} import {owner}\nlayer = {owner}()\nlayer(q, k, v, {argument}=m)\n"
        migration = migrate(source)
        assert migration.outcome is Outcome.FLAGGED
        assert argument in migration.source.decode().splitlines()[-2]
        seen += 1
    assert seen >= 9


def test_nothing_still_there_is_moved() -> None:
    for path in STILL_THERE:
        source = f"from {path} import create_dilated_attention\nf = create_dilated_attention()\n"
        assert migrate(source).outcome is Outcome.LEFT
    moved = migrate("from dilated_attention_pytorch.dilated_attention import DilatedAttention\n")
    assert moved.source == b"from dilated_attention_pytorch import DilatedAttention\n"


STAYING = [
    record
    for record in IMPORTED
    if record.fate in (compat.Fate.KEPT, compat.Fate.CORRECTED) and record.rewrite is None
]


@pytest.mark.parametrize("record", STAYING, ids=name_of)
def test_of_what_stays_only_the_import_moves(record: compat.LegacyRecord) -> None:
    name = record.identifier
    uses = f"class A({name}): ...\nx = {name}(1, *a, b=2)\ny = [{name}]\n"
    for module in record.old_modules:
        migration = migrate(f"from {module} import {record.identifier}\n{uses}")
        if record.codemod.startswith("Flagged"):
            assert migration.outcome is Outcome.FLAGGED
            continue
        home = module if module in STILL_THERE else PACKAGE
        assert migration.source.decode() == f"from {home} import {record.identifier}\n{uses}"


def test_a_selection_looks_at_nothing_else() -> None:
    both = "".join(
        f"from {PACKAGE} import {n}\n{n}([1], [1])\n"
        for n in ("RingDilatedAttention", "BlockSparseRingDilatedAttention")
    )
    only = migrate(both, Vocabulary(["Block*"])).source.decode()
    assert "BlockSparse" not in only
    assert "import RingDilatedAttention\n" in only
    with pytest.raises(ValueError, match="no old name matches Nothing"):
        Vocabulary(["Ring*", "Nothing"])
