"""What a run of the migration prints."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Sequence

from .. import __version__
from .._record import GUIDE
from .._registry import require
from .files import FileResult
from .source import Outcome
from .vocabulary import PACKAGE, Vocabulary


def diff(result: FileResult) -> str:
    """Return the unified diff of one file."""
    before, after = (
        re.findall(r"[^\n]*\n|[^\n]+", data.decode(errors="replace"))
        for data in (result.before, result.migration.source)
    )
    lines = difflib.unified_diff(before, after, f"a/{result.path}", f"b/{result.path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline\n" for line in lines)


def text_report(results: Sequence[FileResult]) -> str:
    """Return one line for each place that a person has to look at, and the totals."""
    lines = []
    for result in results:
        for finding in result.migration.findings:
            if finding.outcome is Outcome.FLAGGED:
                place = (
                    f"cell {finding.cell}, line {finding.line}" if finding.cell else finding.line
                )
                lines.append(f"{result.path}:{place}: {finding.name}: {finding.reason}")
                lines.append(f"    see {_guide(finding.name)}")
        if result.error:
            lines.append(f"{result.path}: {result.error}")
    counts = _counts(results)
    lines.append(", ".join(f"{count} {what}" for what, count in counts.items()))
    return "\n".join(lines)


def json_report(results: Sequence[FileResult], *, written: bool) -> str:
    """Return the same for programs; files that are left are counted, not listed."""
    files = [
        {
            "path": str(result.path),
            "outcome": "error" if result.error else str(result.migration.outcome),
            "changes": result.changes,
            "error": result.error,
            "findings": [
                {
                    "cell": finding.cell or None,
                    "line": finding.line,
                    "name": finding.name,
                    "outcome": str(finding.outcome),
                    "reason": finding.reason,
                    "guide": _guide(finding.name),
                }
                for finding in result.migration.findings
            ],
        }
        for result in results
        if result.error or result.migration.findings
    ]
    report = {
        "version": __version__,
        "written": written,
        "counts": _counts(results),
        "files": files,
    }
    return json.dumps(report, indent=2)


def listing(vocabulary: Vocabulary) -> str:
    """Return every old name, what became of it, and what the migration does about it."""
    return "\n\n".join(
        f"{record.name} ({record.kind}, {record.fate})\n    {record.codemod}\n    {record.guide}"
        for record in vocabulary.records
    )


def _counts(results: Sequence[FileResult]) -> dict[str, int]:
    outcomes = Counter(
        "error" if result.error else str(result.migration.outcome) for result in results
    )
    changed = sum(result.changes for result in results)
    named = {str(outcome): outcomes[outcome] for outcome in Outcome}
    return {"files": len(results), **named, "errors": outcomes["error"], "changed": changed}


def _guide(name: str) -> str:
    return GUIDE if name == PACKAGE else require(name).guide
