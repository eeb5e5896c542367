"""The records agree with each other and with the code, and imports stay light."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import warnings

import pytest
from packaging.version import Version

import dilated_attention_compat as compat
from dilated_attention_compat import Fate, Kind, Ran

RECORDS = compat.RECORDS
SERVED = [record for record in RECORDS if record.fate is Fate.COMPAT]
HISTORICAL = [record for record in RECORDS if record.historical]
GONE = [record for record in RECORDS if record.fate is Fate.GONE]
CHANGED = [record for record in RECORDS if record.fate is not Fate.KEPT]
RELEASED = {"0.2.0", "0.2.1"}
OLD = "dilated_attention_pytorch"
each = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
each_served = pytest.mark.parametrize("record", SERVED, ids=lambda record: record.name)
each_historical = pytest.mark.parametrize("record", HISTORICAL, ids=lambda record: record.name)
each_gone = pytest.mark.parametrize("record", GONE, ids=lambda record: record.name)
each_changed = pytest.mark.parametrize("record", CHANGED, ids=lambda record: record.name)


def run_fresh(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@each_served
def test_a_deprecated_name_does_not_outlive_its_version(record: compat.LegacyRecord) -> None:
    now, removed = Version(compat.__version__), Version(record.removed_in)
    assert Version(record.since) <= now < removed
    assert removed.micro == 0


@each_changed
def test_since_is_a_released_version(record: compat.LegacyRecord) -> None:
    assert record.since in RELEASED
    assert bool(record.removed_in) == (record.fate in (Fate.COMPAT, Fate.GONE))
    if record.fate is Fate.GONE:
        assert Version(record.removed_in) <= Version(compat.__version__)


@each
def test_a_record_says_what_its_fate_asks_for(record: compat.LegacyRecord) -> None:
    assert record.codemod
    assert record.guide_anchor
    assert bool(record.since) == (record.fate is not Fate.KEPT)
    assert bool(record.why) == (record.fate is not Fate.KEPT and not record.promised_reason)
    if record.fate is Fate.COMPAT:
        assert record.replacement
        assert record.measured
        assert record.target == record.historical
    if record.fate in (Fate.KEPT, Fate.CORRECTED):
        assert record.target.startswith(f"{OLD}:") == record.is_imported
        assert bool(record.historical) == (record.relative_error is not None)
    if record.fate is Fate.GONE:
        assert not record.target
        assert not record.historical
    for clause in (record.why, record.measured, record.defect, record.replacement):
        assert not clause.endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "other"  # type: ignore[misc]


@each
def test_a_wrong_number_has_its_size_and_its_defect(record: compat.LegacyRecord) -> None:
    wrong = record.relative_error is not None
    assert bool(record.defect) == wrong
    if wrong:
        assert record.result_change
        assert record.identifier in record.numbers_message
    else:
        with pytest.raises(ValueError, match="no measured error"):
            record.numbers_message  # noqa: B018


@each
def test_kinds_fit_their_names(record: compat.LegacyRecord) -> None:
    called = re.fullmatch(r"(?P<owner>[\w.]+)\((?P<what>.*)\)", record.name)
    assert record.is_imported == (record.kind in (Kind.CLASS, Kind.FUNCTION, Kind.CONSTANT))
    if record.is_imported:
        assert record.identifier.isidentifier()
        assert record.old_modules
        assert all(path.startswith(f"{OLD}.") for path in record.old_modules)
        return
    assert called
    assert record.identifier == record.name
    assert not record.old_modules
    assert not record.exported
    assert called["owner"].split(".")[0] in {r.name for r in RECORDS if r.target}
    if record.kind is Kind.ATTENTION_TYPE:
        assert called["owner"] in ("create_dilated_attention", "create_multihead_dilated_attention")


@each_served
def test_snippets_are_programs_that_leave_the_old_name_behind(record: compat.LegacyRecord) -> None:
    for snippet in (record.before, record.after):
        compile(snippet, record.name, "exec")
        assert snippet.endswith("\n")
    old = re.compile(rf"\b{record.identifier}\b")
    assert old.search(record.before)
    assert not old.search(record.after)
    assert record.exported == (f"from {OLD} import {record.identifier}" in record.before)


@each
def test_a_rewrite_knows_the_parameters_it_speaks_of(record: compat.LegacyRecord) -> None:
    rewrite = record.rewrite
    if rewrite is None:
        assert record.is_imported or "ewritten" in record.codemod or record.codemod in (
            *("Left out of the call.", "Flagged.", "Nothing to rewrite: the call is the same."),
        )  # fmt: skip
        return
    known = set(rewrite.parameters)
    assert len(known) == len(rewrite.parameters)
    renamed = {old for old, _ in rewrite.renamed}
    factory = record.name.startswith("create_")
    assert factory or set(rewrite.dropped) | set(rewrite.flagged) | renamed <= known
    assert not set(rewrite.dropped) & set(rewrite.flagged)
    assert rewrite.target.startswith(f"{OLD}:")
    assert bool(rewrite.attention_type) <= rewrite.target.endswith("_dilated_attention")


def test_names_are_unique_and_exports_too() -> None:
    names = [record.name for record in RECORDS]
    assert len(set(names)) == len(names)
    identifiers = [record.identifier for record in RECORDS if record.exported]
    assert len(set(identifiers)) == len(identifiers)
    for path, records in compat.old_modules().items():
        held = [record.identifier for record in records]
        assert len(set(held)) == len(held), path
    assert all(compat.require(record.name) is compat.find(record.name) for record in RECORDS)


@each_historical
def test_the_historical_object_exists_and_loading_is_silent(record: compat.LegacyRecord) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = compat.load(record)
    assert loaded.__name__ == record.identifier
    assert loaded.__module__ == record.historical.partition(":")[0]
    if record.name == record.identifier:
        assert loaded is getattr(compat, record.name)
        assert record.name in dir(compat)


@each_gone
def test_what_is_gone_is_not_served_and_says_what_to_use(record: compat.LegacyRecord) -> None:
    with pytest.raises(LookupError, match="nothing here behaves as"):
        compat.load(record)
    assert record.advice.startswith(f"{record.name} is gone since v0.2.1: {record.why}; ")
    assert (record.replacement or "nothing replaces it") in record.advice
    assert record.advice.endswith(f"See {compat.GUIDE}#{record.guide_anchor}.")
    if record.is_imported:
        assert record.name not in dir(compat)
        with pytest.raises(AttributeError, match="has no attribute"):
            getattr(compat, record.name)


def test_what_never_ran_has_no_numbers() -> None:
    for record in HISTORICAL:
        if record.ran is not Ran.FORWARD:
            assert record.relative_error is None, record.name
            assert "never" in record.deprecation_message


def test_unknown_names_are_ordinary_attribute_errors() -> None:
    assert compat.find("nothing") is None
    with pytest.raises(KeyError):
        compat.require("nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        compat.nothing  # noqa: B018


def test_records_and_warnings_need_no_torch() -> None:
    run_fresh(
        "import sys; sys.modules['torch'] = None\n"
        "import dilated_attention_compat as c\n"
        "assert all(r.deprecation_message for r in c.RECORDS if r.fate == 'compat')\n"
        "assert all(r.advice for r in c.RECORDS if r.fate == 'gone')\n"
        "assert c.RingAttentionDeprecationWarning and dir(c) and c.old_modules() and c.exported()\n"
        "assert 'numpy' not in sys.modules and 'typing_extensions' not in sys.modules\n"
    )
