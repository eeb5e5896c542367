"""Old names in strings: exports in `__all__`, and paths that something else will import."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import libcst as cst

from .syntax import dotted
from .vocabulary import PACKAGE, OldName, Vocabulary

_EXTENDING = ("append", "extend")
_LOOK_UPS = ("getattr", "hasattr")
_BY_NAME = ("import_module", "__import__", "importorskip")


def exported_strings(nodes: Iterable[cst.CSTNode]) -> Iterator[cst.SimpleString]:
    """Yield the strings in `__all__`, wherever it is assigned or extended."""
    for node in nodes:
        if _touches_all(node):
            yield from _strings_in(node)


def cast_strings(nodes: Iterable[cst.CSTNode]) -> Iterator[cst.SimpleString]:
    """Yield the types that `typing.cast` is given as strings."""
    for node in nodes:
        if isinstance(node, cst.Call) and dotted(node.func) in ("cast", "typing.cast"):
            first = node.args[0].value if node.args else None
            if isinstance(first, cst.SimpleString):
                yield first


def paths_in_strings(
    nodes: Iterable[cst.CSTNode], vocabulary: Vocabulary
) -> Iterator[tuple[OldName, cst.SimpleString, str]]:
    """Yield the strings that are the path of an old name or of an old module.

    `mock.patch`, `importlib.import_module` and configuration files follow such paths where no tool
    sees it.

    Yields:
        The old name (of a module the first), the string, and the path.
    """
    for node in nodes:
        if not (isinstance(node, cst.SimpleString) and PACKAGE in node.value):
            continue
        path = node.evaluated_value
        if not isinstance(path, str):
            continue
        if path in vocabulary.by_path:
            yield vocabulary.by_path[path], node, path
        elif path in vocabulary.modules:
            yield next(iter(vocabulary.starred(path).values())), node, path


def looked_up(
    nodes: Collection[cst.CSTNode], vocabulary: Vocabulary, used: Collection[cst.CSTNode]
) -> Iterator[tuple[OldName, cst.CSTNode]]:
    """Yield where an old name is asked for at run time.

    That is in `getattr` and `hasattr`, and as an attribute where a string names the package that is
    imported.

    Args:
        nodes: The nodes of a module.
        vocabulary: The old names.
        used: Nodes that are known to be old names.
    """
    names = vocabulary.starred(PACKAGE)
    by_name = any(_literal(node, _BY_NAME, 0) == PACKAGE for node in nodes)
    for node in nodes:
        found = names.get(_literal(node, _LOOK_UPS, 1))
        if by_name and isinstance(node, cst.Attribute) and node not in used:
            found = names.get(node.attr.value)
        if found is not None:
            yield found, node


def _literal(node: cst.CSTNode, functions: Collection[str], position: int) -> str:
    """Return the string that a call of one of `functions` has at `position`, or nothing."""
    if not isinstance(node, cst.Call) or dotted(node.func).rpartition(".")[2] not in functions:
        return ""
    values = [argument.value for argument in node.args][position : position + 1]
    strings = [value.evaluated_value for value in values if isinstance(value, cst.SimpleString)]
    return next((string for string in strings if isinstance(string, str)), "")


def _touches_all(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Assign):
        return any(_is_all(target.target) for target in node.targets)
    if isinstance(node, cst.AnnAssign | cst.AugAssign):
        return _is_all(node.target)
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        return _is_all(node.func.value) and node.func.attr.value in _EXTENDING
    return False


def _is_all(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value == "__all__"


def _strings_in(node: cst.CSTNode) -> Iterator[cst.SimpleString]:
    if isinstance(node, cst.SimpleString):
        yield node
    else:
        for child in node.children:
            yield from _strings_in(child)
