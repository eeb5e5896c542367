"""The parts of the migration guide that the registry says, and how they get into the page.

A part stands between `<!-- NAME: from the registry -->` and `<!-- end -->`.
``python tests/support/migration_guide.py`` writes all of them anew.
"""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from dilated_attention_compat import GUIDE, RECORDS, Fate, Kind, LegacyRecord, Ran

PAGE = Path(__file__).resolve().parents[2] / GUIDE
PACKAGE, COMPAT = "dilated_attention_pytorch", "dilated_attention_compat"
SHARED = ("every-old-name", "arguments", "factory", "configuration-classes")
"""Sections that hold tables of many records; every other section is one class's."""

_PART = re.compile(r"(?<=<!-- )(\S+)(: from the registry -->\n).*?(?=<!-- end -->)", re.S)
_FATES = {
    Fate.KEPT: "kept",
    Fate.CORRECTED: "corrected",
    Fate.COMPAT: "deprecated",
    Fate.GONE: "gone",
}


def errors(served: bool) -> str:
    """Return the table of measured errors."""
    rows = ["| | full | causal | |", "|---|---|---|---|"]
    for record in RECORDS:
        if record.relative_error is None:
            continue
        full, causal = record.relative_error
        masked = "NaN" if math.isnan(causal) else f"{causal:.2f}"
        against = f" Right here: {_lower(record.error_against)}" if record.error_against else ""
        rows.append(
            f"| `{record.name}` | {full:.2f} | {masked} | it {record.defect}.{_cell(against)} |"
        )
    return "\n".join(rows)


def classes(served: bool) -> str:
    """Return a section for each class and function with one of its own."""
    anchors = dict.fromkeys(r.guide_anchor for r in RECORDS if r.guide_anchor not in SHARED)
    sections = []
    for anchor in anchors:
        records = [record for record in RECORDS if record.guide_anchor == anchor]
        heading = next(r.identifier for r in records if r.identifier.lower() == anchor)
        sections.append(f"### {heading}\n\n" + "\n\n".join(_section(r, served) for r in records))
    return "\n\n".join(sections)


def configurations(served: bool) -> str:
    """Return the tabs of the configuration classes."""
    records = [record for record in RECORDS if record.guide_anchor == "configuration-classes"]
    return "\n\n".join(f"#### {r.identifier}\n\n{_section(r, served)}" for r in records)


def types(served: bool) -> str:
    """Return the table of attention types."""
    rows = [_row(record) for record in RECORDS if record.kind is Kind.ATTENTION_TYPE]
    return "\n".join(("| call | | |", "|---|---|---|", *rows))


def arguments(served: bool) -> str:
    """Return the table of changed arguments and defaults."""
    rows = [_row(record) for record in RECORDS if record.kind in (Kind.ARGUMENT, Kind.DEFAULT)]
    return "\n".join(("| argument | | |", "|---|---|---|", *rows))


def names(served: bool) -> str:
    """Return the table of everything that could be imported."""
    rows = ["| name | | use |", "|---|---|---|"]
    for record in sorted(RECORDS, key=lambda record: record.identifier.lower()):
        if not record.is_imported:
            continue
        own = record.guide_anchor not in SHARED
        name = f"[`{record.name}`](#{record.guide_anchor})" if own else f"`{record.name}`"
        use = record.replacement or ("nothing" if record.fate is Fate.GONE else "the same name")
        rows.append(f"| {name} | {_FATES[record.fate]} | {_cell(use)} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[bool], str]] = {
    "errors": errors,
    "classes": classes,
    "configurations": configurations,
    "types": types,
    "arguments": arguments,
    "names": names,
}


def render(text: str, *, served: bool = True) -> str:
    """Return the guide's text with every part as the registry says it.

    Args:
        text: The page.
        served: Whether the library still serves deprecated names; else old code takes them from
            the compat package.
    """
    return _PART.sub(lambda match: f"{match[1]}{match[2]}{PARTS[match[1]](served)}\n", text)


def parts_of(text: str) -> list[str]:
    """Return the names of the parts that a page has."""
    return [match[1] for match in _PART.finditer(text)]


def before(record: LegacyRecord, *, served: bool = True) -> str:
    """Return a record's old snippet in a form that runs.

    What could never be constructed is shown to raise; what the library does not serve any more is
    taken from the compat package.
    """
    snippet = record.before
    if not served:
        module = COMPAT
        if record.name != record.identifier:
            module = record.historical.partition(":")[0]
        snippet = re.sub(rf"^from {PACKAGE}[\w.]* import", f"from {module} import", snippet)
    line, rest = snippet.split("\n", 1)
    if len(line) > 100:
        head, name = line.rsplit(" ", 1)
        snippet = f"{head} (\n    {name},\n)\n{rest}"
    if record.ran is not Ran.NOTHING:
        return snippet
    head, _, call = snippet.rpartition("\n\n")
    return (
        f"{head}\n\ntry:\n{textwrap.indent(call, '    ')}"
        "except RuntimeError as error:\n"
        '    assert "could never be constructed" in str(error)\n'
        "else:\n"
        "    raise AssertionError\n"
    )


def _section(record: LegacyRecord, served: bool) -> str:
    paragraphs = []
    if record.measured:
        fault = f"`{record.name}`: {record.measured}."
        paragraphs.append(fault)
    if record.before:
        paragraphs.append(_tab("Before", before(record, served=served)))
        paragraphs.append(_tab("After", record.after))
    paragraphs += filter(None, (record.result_change, f"Migration tool: {record.codemod}"))
    return "\n\n".join(_wrapped(paragraph) for paragraph in paragraphs)


def _tab(title: str, code: str) -> str:
    return f'=== "{title}"\n\n' + textwrap.indent(f"```python\n{code}```", "    ")


def _wrapped(paragraph: str) -> str:
    if paragraph.startswith("==="):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _row(record: LegacyRecord) -> str:
    instead = f"use {record.replacement}" if record.replacement else ""
    said = "; ".join(filter(None, (record.why, instead)))
    return f"| `{record.name}` | {_FATES[record.fate]} | {_cell(said)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("**", "\\*\\*")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


if __name__ == "__main__":
    still_served = "--removed" not in sys.argv
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), served=still_served), encoding="utf-8")
