"""The statements of a module that may have to do with old names: the only ones worth analysing.

Resolving scopes costs ten times what parsing does. A top-level statement that has none of the words
in question cannot use an old name, hide one, or take the name of a new one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence

import libcst as cst

from .vocabulary import PACKAGE, Vocabulary

Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement

_WORD = re.compile(r"\w+")
_LOCAL = re.compile(r"\bas\s+(\w+)")


class Excerpt:
    """Part of a module.

    Args:
        whole: The module.
        vocabulary: The old names in question.

    Attributes:
        tree: A module of the statements in question, in their order.
    """

    def __init__(self, whole: cst.Module, vocabulary: Vocabulary) -> None:
        self._whole = whole
        self._codes = [whole.code_for_node(statement) for statement in whole.body]
        self._kept = _relevant(whole.body, self._codes, vocabulary)
        self._head = "".join(whole.code_for_node(line) for line in whole.header)
        self._foot = "".join(whole.code_for_node(line) for line in whole.footer)
        self._first_lines: list[int] = []
        self._true_lines: list[int] = []
        line = true = 1 + self._head.count("\n")
        for index, code in enumerate(self._codes):
            if index in self._kept:
                self._first_lines.append(line)
                self._true_lines.append(true)
                line += code.count("\n")
            true += code.count("\n")
        body = [whole.body[index] for index in sorted(self._kept)]
        self.tree = whole.with_changes(body=body, footer=())

    @property
    def source(self) -> bytes:
        """The source of the whole module, as LibCST has it."""
        return self._joined(self._codes)

    def is_first(self, statement: cst.CSTNode) -> bool:
        """Whether a statement is the first of the whole module."""
        return bool(self._whole.body) and self._whole.body[0] is statement

    def line(self, line: int) -> int:
        """Return the line of the whole module, from the line of the excerpt."""
        index = bisect_right(self._first_lines, line) - 1
        return line - self._first_lines[index] + self._true_lines[index]

    def rewritten(self, visitor: cst.CSTTransformer) -> bytes:
        """Return the source of the whole module with the statements of the excerpt rewritten."""
        codes = list(self._codes)
        for index in self._kept:
            new = self._whole.body[index].visit(visitor)
            nodes: list[cst.CSTNode] = []
            if isinstance(new, cst.FlattenSentinel):
                nodes = list(new)
            elif not isinstance(new, cst.RemovalSentinel):
                nodes = [new]
            codes[index] = "".join(self._whole.code_for_node(node) for node in nodes)
        return self._joined(codes)

    def _joined(self, codes: Sequence[str]) -> bytes:
        code = f"{self._head}{''.join(codes)}{self._foot}"
        if not self._whole.has_trailing_newline:
            code = code.removesuffix(self._whole.default_newline)
        return code.encode(self._whole.encoding)


def _relevant(body: Sequence[Statement], codes: Sequence[str], vocabulary: Vocabulary) -> set[int]:
    words = {PACKAGE, "__all__", "distributed", *vocabulary.words}
    for code in codes:
        if PACKAGE in code:
            words.update(_LOCAL.findall(code))
    found = [set(_WORD.findall(code)) for code in codes]
    kept = {index for index, there in enumerate(found) if not words.isdisjoint(there)}
    # An object that an old constructor makes may be used by any other statement.
    made = {name for index in kept for name in _made(body[index], words)}
    return kept | {index for index, there in enumerate(found) if not made.isdisjoint(there)}


def _calls_one_of(call: cst.Call, words: Collection[str]) -> bool:
    """Whether a call, or one that it is a method of the result of, is of a word in question."""
    called: cst.BaseExpression = call
    while isinstance(called, cst.Call | cst.Attribute):
        if isinstance(called, cst.Attribute) and called.attr.value in words:
            return True
        called = called.func if isinstance(called, cst.Call) else called.value
    return isinstance(called, cst.Name) and called.value in words


def _made(statement: cst.CSTNode, words: Collection[str]) -> Iterator[str]:
    """Yield the names that a statement binds, outside functions, to calls of words in question."""
    if isinstance(statement, cst.FunctionDef | cst.ClassDef | cst.BaseExpression):
        return
    targets: list[cst.BaseExpression] = []
    if isinstance(statement, cst.Assign):
        targets = [assigned.target for assigned in statement.targets]
    elif isinstance(statement, cst.AnnAssign):
        targets = [statement.target]
    value = statement.value if isinstance(statement, cst.Assign | cst.AnnAssign) else None
    if isinstance(value, cst.Call) and _calls_one_of(value, words):
        yield from (target.value for target in targets if isinstance(target, cst.Name))
    for child in statement.children:
        yield from _made(child, words)
