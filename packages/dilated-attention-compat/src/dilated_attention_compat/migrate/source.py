"""The migration of one module's source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import libcst as cst

from .decide import Decision, decide
from .excerpt import Excerpt
from .todo import CHECKED, comment, comments_above, statement_of
from .transform import Rewriter
from .uses import Module
from .vocabulary import PACKAGE, Vocabulary


class Outcome(StrEnum):
    """What became of a file, or of one place in it."""

    LEFT = "left"
    MIGRATED = "migrated"
    FLAGGED = "flagged"


@dataclass(frozen=True)
class Finding:
    """One place where an old name is used.

    Attributes:
        line: Line of the source, from 1.
        name: Name of the record.
        outcome: `migrated` or `flagged`.
        reason: Why it was flagged; empty where it was migrated.
        cell: Cell of a notebook, from 1; the line is the cell's then.
    """

    line: int
    name: str
    outcome: Outcome
    reason: str = ""
    cell: int = 0


@dataclass(frozen=True)
class Migration:
    """What became of a source.

    Attributes:
        source: The new source; the old object where nothing changed.
        findings: Every place, by line.
    """

    source: bytes
    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """`flagged` where a person has to look at something, else `migrated` or `left`."""
        outcomes = {finding.outcome for finding in self.findings}
        if Outcome.FLAGGED in outcomes:
            return Outcome.FLAGGED
        return Outcome.MIGRATED if outcomes else Outcome.LEFT


def migrate_source(
    source: bytes,
    vocabulary: Vocabulary,
    *,
    star: bool = False,
    is_package: bool = False,
    taken: Mapping[str, str] = MappingProxyType({}),
) -> Migration:
    """Rewrite the old names of a module.

    Args:
        source: The module as it is on disk: encoding, byte order mark and line ends are kept.
        vocabulary: The old names to look for.
        star: Whether names that nothing else defines come from a star import.
        is_package: Whether the module is an `__init__.py`.
        taken: Which file imports a name from this one, by name; `*` for all names.

    Raises:
        ValueError: The source is no Python that can be parsed.
    """
    # Without this word there is no import of the package, and parsing costs most of the time.
    if PACKAGE.encode() not in source:
        return Migration(source)
    try:
        tree = cst.parse_module(source)
    except (cst.ParserSyntaxError, UnicodeDecodeError, SyntaxError) as error:
        raise ValueError(f"not parsed: {error}") from error
    excerpt = Excerpt(tree, vocabulary)
    if excerpt.source != source:
        raise ValueError(
            "left as it is: LibCST would change other lines too (form feeds, carriage returns "
            "alone, spaces after the last line, or a comment ending in a backslash)"
        )
    module = Module(excerpt, vocabulary)
    decision = decide(module, vocabulary, star=star, is_package=is_package, taken=taken)
    comments, findings = _flags(module, decision)
    rewriter = Rewriter(module, decision, comments)
    findings += (
        Finding(module.line(node), name.record.name, Outcome.MIGRATED)
        for node, name in rewriter.changed
    )
    changed = excerpt.rewritten(rewriter)
    findings.sort(key=lambda finding: (finding.line, finding.name))
    return Migration(source if changed == source else changed, tuple(findings))


def _flags(
    module: Module, decision: Decision
) -> tuple[dict[cst.CSTNode, list[str]], list[Finding]]:
    """Return the comments to write, by statement, and what is flagged, written or not."""
    comments: defaultdict[cst.CSTNode, list[str]] = defaultdict(list)
    findings: list[Finding] = []
    for problem in decision.problems:
        statement = statement_of(module, problem.node)
        above = comments_above(module, statement)
        if any(CHECKED in line for line in above):
            continue
        line = module.line(problem.node)
        findings.append(Finding(line, problem.subject, Outcome.FLAGGED, problem.reason))
        text = comment(problem.subject, problem.reason)
        if text not in (*above, *comments[statement]):
            comments[statement].append(text)
    return {statement: lines for statement, lines in comments.items() if lines}, findings
