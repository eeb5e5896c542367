"""Import statements that give the new names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

from .syntax import dotted
from .vocabulary import PACKAGE

Comma = cst.Comma | cst.MaybeSentinel


@dataclass(frozen=True)
class Imported:
    """What one alias of a `from` import becomes.

    Attributes:
        module: Module to import from; empty to import the package itself in its place.
        names: Names to import.
        renamed: Those of them that take the alias's `as`.
    """

    module: str
    names: tuple[str, ...] = ()
    renamed: frozenset[str] = frozenset()


def rewritten_from(
    statement: cst.ImportFrom, plan: Mapping[cst.ImportAlias, Imported]
) -> list[cst.BaseSmallStatement]:
    """Return what a `from` import becomes: itself with other names, and imports from elsewhere."""
    assert not isinstance(statement.names, cst.ImportStar)
    here = dotted(statement.module)
    wholes: list[cst.BaseSmallStatement] = []
    groups: dict[str, list[tuple[int, cst.ImportAlias]]] = {here: []}
    for index, alias in enumerate(statement.names):
        imported = plan.get(alias)
        if imported is None:
            groups[here].append((index, alias))
        elif not imported.module:
            wholes.append(cst.Import([cst.ImportAlias(cst.Name(PACKAGE), alias.asname)]))
        else:
            group = groups.setdefault(imported.module, [])
            group += ((index, new) for new in _new_aliases(alias, imported, statement))
    kept = [(module, group) for module, group in groups.items() if group]
    statements: list[cst.BaseSmallStatement] = []
    for module, group in kept:
        if not statements:
            chain = statement.module if module == here else _chain(module)
            names = _joined(group, statement)
            statements.append(statement.with_changes(module=chain, names=names))
        else:
            statements.append(import_of(module, [alias for _, alias in group]))
    return [*wholes, *statements]


def rewritten_import(statement: cst.Import, modules: Sequence[cst.ImportAlias]) -> cst.Import:
    """Return an `import` in which some old modules have become the package."""
    names = [
        alias.with_changes(name=cst.Name(PACKAGE)) if alias in modules else alias
        for alias in statement.names
    ]
    return statement.with_changes(names=names)


def import_of(module: str, names: Sequence[cst.ImportAlias | str]) -> cst.ImportFrom:
    """Return a plain `from` import."""
    aliases = [cst.ImportAlias(cst.Name(name)) if isinstance(name, str) else name for name in names]
    plain = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in aliases]
    return cst.ImportFrom(_chain(module), plain)


def without_repeats(
    statement: cst.BaseSmallStatement, given: set[tuple[str, str, str]]
) -> cst.BaseSmallStatement | None:
    """Return an import less what `given` says was imported before; None where nothing is left.

    Args:
        statement: The import.
        given: What was imported so far, as module, name and local name; what is left is added.
    """
    if not isinstance(statement, cst.Import | cst.ImportFrom):
        return statement
    if isinstance(statement.names, cst.ImportStar):
        return statement
    left = []
    for index, alias in enumerate(statement.names):
        module = dotted(statement.module) if isinstance(statement, cst.ImportFrom) else ""
        key = (module, dotted(alias.name), alias.evaluated_alias or "")
        if key not in given:
            given.add(key)
            left.append((index, alias))
    if len(left) == len(statement.names):
        return statement
    return statement.with_changes(names=_joined(left, statement)) if left else None


def _chain(path: str) -> cst.Name | cst.Attribute:
    head, _, last = path.rpartition(".")
    return cst.Attribute(_chain(head), cst.Name(last)) if head else cst.Name(last)


def _new_aliases(
    old: cst.ImportAlias, imported: Imported, statement: cst.ImportFrom
) -> list[cst.ImportAlias]:
    """Return the aliases that replace an old one, less those that the statement has already."""
    assert not isinstance(statement.names, cst.ImportStar)
    there = dotted(statement.module) == imported.module
    had = {
        alias.evaluated_name
        for alias in statement.names
        if there and alias is not old and alias.asname is None
    }
    new = []
    for name in imported.names:
        asname = old.asname if name in imported.renamed else None
        if asname is not None or name not in had:
            new.append(old.with_changes(name=cst.Name(name), asname=asname))
    return new


def _joined(
    group: Sequence[tuple[int, cst.ImportAlias]], statement: cst.Import | cst.ImportFrom
) -> list[cst.ImportAlias]:
    """Return aliases with the statement's own commas, and spacing, between and after them."""
    assert not isinstance(statement.names, cst.ImportStar)
    commas: list[Comma] = [alias.comma for alias in statement.names]
    new = []
    for position, (index, alias) in enumerate(group):
        own = commas[index]
        if position == len(group) - 1:
            comma = closing(own, commas[-1])
        elif group[position + 1][0] == index:
            comma = _between(statement)
        else:
            comma = own
        new.append(alias.with_changes(comma=comma))
    return new


def closing(own: Comma, last: Comma) -> Comma:
    """Return the last comma of a list, with the comment on the line that now ends it."""
    if not (isinstance(own, cst.Comma) and isinstance(last, cst.Comma)) or own is last:
        return last
    mine, after = own.whitespace_after, last.whitespace_after
    lines = cst.ParenthesizedWhitespace
    if isinstance(mine, lines) and isinstance(after, lines):
        after = after.with_changes(first_line=mine.first_line)
    return last.with_changes(whitespace_after=after)


def _between(statement: cst.Import | cst.ImportFrom) -> cst.Comma:
    """Return a comma as the statement has it between two names, or would have it."""
    assert not isinstance(statement.names, cst.ImportStar)
    after: cst.BaseParenthesizableWhitespace = cst.SimpleWhitespace(" ")
    trailing = isinstance(statement.names[-1].comma, cst.Comma)
    opening = statement.lpar if isinstance(statement, cst.ImportFrom) else None
    if trailing and isinstance(opening, cst.LeftParen):
        opened = opening.whitespace_after
        if isinstance(opened, cst.ParenthesizedWhitespace):
            after = opened.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    return cst.Comma(whitespace_after=after)
