"""The migration of a notebook: its code cells are one program, in the order of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import libcst as cst

from .source import Finding, Migration, Outcome, migrate_source
from .vocabulary import PACKAGE, Vocabulary

_BOUNDARY = "__notebook_cell_begins__"
_MASK = "pass  # __notebook_line_{}__"
_MASKED = re.compile(r"pass  # __notebook_line_(\d+)__")
# `!pip`, `%time f()`, `x = !ls`, `f?`: the notebook's own language, line by line.
_OWN_LINE = re.compile(r"(?P<indent>\s*)(?:[!%?].*|[\w.\[\], ]+\s*=\s*[!%].*|[\w.]+\?{1,2})$")
# Cells in another language, but for those whose first line alone is the notebook's.
_OTHER_CELL = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b)")
_DECODER = json.JSONDecoder()
_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Cell:
    """A code cell, and where its source is in the file.

    Attributes:
        number: Its place among all cells, from 1.
        start: Where the JSON value of its source begins.
        json: That value as it is written.
        lines: The strings of the source; usually its lines.
        spans: Where these are in `json`; empty where the source is one string.
    """

    number: int
    start: int
    json: str
    lines: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """Where the value ends."""
        return self.start + len(self.json)


def migrate_notebook(source: bytes, vocabulary: Vocabulary, *, star: bool = False) -> Migration:
    """Rewrite the old names in the code cells of a notebook.

    Lines that are not Python (`!pip`, `%time`) are left as they are. A cell in another language
    (`%%writefile`), or one that does not parse, is left, and flagged if it has an old name or, the
    latter, the package's. Only the changed lines of changed cells are written anew.

    Args:
        source: The notebook as it is on disk.
        vocabulary: The old names to look for.
        star: Whether names that nothing else defines come from a star import.

    Raises:
        ValueError: The source is not a notebook of format 4.
    """
    if PACKAGE.encode() not in source:
        return Migration(source)
    text = source.decode()
    names = vocabulary.identifiers
    masked: list[str] = []
    findings: list[Finding] = []
    cells: list[Cell] = []
    programs: list[str] = []
    for cell in code_cells(text):
        source_code = "".join(cell.lines)
        foreign = _OTHER_CELL.match(source_code)
        code = None if foreign else _as_python(source_code, masked)
        if code is not None:
            cells.append(cell)
            programs.append(code)
        elif not (names if foreign else {*names, PACKAGE}).isdisjoint(_WORD.findall(source_code)):
            reason = "in another language" if foreign else "this cell is not parsed"
            reason = f"{reason}, so nothing is rewritten"
            findings.append(Finding(1, PACKAGE, Outcome.FLAGGED, reason, cell.number))
    program = "".join(f"{_BOUNDARY}\n{code}\n" for code in programs)
    migration = migrate_source(program.encode(), vocabulary, star=star)
    findings += (_located(finding, cells, programs) for finding in migration.findings)
    parts = migration.source.decode().split(f"{_BOUNDARY}\n")[1:]
    for cell, before, after in reversed(list(zip(cells, programs, parts, strict=True))):
        if after[:-1] != before:
            new = _MASKED.sub(lambda match: masked[int(match[1])], after[:-1])
            text = text[: cell.start] + _encoded(cell, new) + text[cell.end :]
    changed = text.encode()
    return Migration(source if changed == source else changed, tuple(findings))


def code_cells(text: str) -> Iterator[Cell]:
    """Yield the code cells of a notebook.

    Raises:
        ValueError: The text is not a notebook of format 4.
    """
    try:
        found = dict(_members(text, _skip(text, 0)))
        for number, start in enumerate(_items(text, found["cells"]), 1):
            members = dict(_members(text, start))
            kind, _ = _DECODER.raw_decode(text, members["cell_type"])
            begin = members["source"]
            value, end = _DECODER.raw_decode(text, begin)
            spans: tuple[tuple[int, int], ...] = ()
            if isinstance(value, list):
                starts = _items(text, begin)
                spans = tuple(
                    (at - begin, _DECODER.raw_decode(text, at)[1] - begin) for at in starts
                )
            lines = tuple(value) if isinstance(value, list) else (value,)
            if kind == "code":
                yield Cell(number, begin, text[begin:end], lines, spans)
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a notebook of format 4: {error!r}") from error


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _items(text: str, at: int) -> Iterator[int]:
    """Yield where the items of a JSON list begin."""
    if text[at] != "[":
        raise TypeError(f"expected a list at character {at}")
    at = _skip(text, at + 1)
    while text[at] != "]":
        yield at
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Yield the keys of a JSON object, each with where its value begins."""
    if text[at] != "{":
        raise TypeError(f"expected an object at character {at}")
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        value = _skip(text, _skip(text, at) + 1)
        yield key, value
        at = _skip(text, _DECODER.raw_decode(text, value)[1])
        at = _skip(text, at + 1) if text[at] == "," else at


def _as_python(code: str, masked: list[str]) -> str | None:
    """Return a cell's code, its own lines in the shape of Python; None where it does not parse.

    Args:
        code: The code.
        masked: Takes the lines that were replaced.
    """
    if _parses(code):
        return code
    lines = []
    replaced: list[str] = []
    for line in code.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        own = _OWN_LINE.fullmatch(body)
        if own:
            mask = _MASK.format(len(masked) + len(replaced))
            replaced.append(body.removeprefix(own["indent"]))
            line = own["indent"] + mask + line[len(body) :]
        lines.append(line)
    if not _parses("".join(lines)):
        return None
    masked += replaced
    return "".join(lines)


def _parses(code: str) -> bool:
    try:
        cst.parse_module(code + "\n")
    except (cst.ParserSyntaxError, SyntaxError):
        return False
    return True


def _encoded(cell: Cell, code: str) -> str:
    """Return the JSON of a changed source, with the lines that did not change as they were."""
    if not cell.spans:
        return json.dumps(code, ensure_ascii=False)
    lines = re.findall(r"[^\n]*\n|[^\n]+", code)
    ends = [end for _, end in cell.spans]
    nexts = [start for start, _ in cell.spans[1:]]
    between = [cell.json[end:start] for end, start in zip(ends, nexts, strict=False)]
    opening, ending = cell.json[: cell.spans[0][0]], cell.json[ends[-1] :]
    usual = between[0] if between else "," + opening[1:]
    pieces = [(json.dumps(line, ensure_ascii=False), usual) for line in lines]
    for old, new, size in SequenceMatcher(
        a=cell.lines, b=lines, autojunk=False
    ).get_matching_blocks():
        for step in range(size):
            start, end = cell.spans[old + step]
            after = between[old + step] if old + step < len(between) else usual
            pieces[new + step] = (cell.json[start:end], after)
    body = "".join(string + after for string, after in pieces)
    return opening + body.removesuffix(pieces[-1][1]) + ending


def _located(finding: Finding, cells: Sequence[Cell], programs: Sequence[str]) -> Finding:
    """Return a finding by cell and line of the cell."""
    line = finding.line
    for cell, code in zip(cells, programs, strict=True):
        length = code.count("\n") + 2
        if line <= length:
            return replace(finding, cell=cell.number, line=line - 1)
        line -= length
    raise AssertionError("every finding is in a cell")
