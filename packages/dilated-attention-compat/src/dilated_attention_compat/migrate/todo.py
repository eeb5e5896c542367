"""Comments that say what a person has to look at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, cast

import libcst as cst

from .uses import Module

MARK = "# TODO(dilated-attention-migrate): "
CHECKED = "dilated-attention-migrate: checked"
"""A comment with these words above a statement says that a person has looked at it."""


class Statement(Protocol):
    """A node with lines of comments above it."""

    leading_lines: Sequence[cst.EmptyLine]


def statement_of(module: Module, node: cst.CSTNode) -> cst.CSTNode:
    """Return the innermost statement around a node that can carry comments above it."""
    around = [node, *module.ancestors(node)]
    for child, parent in pairwise(around):
        can_carry = hasattr(child, "leading_lines") and not isinstance(child, cst.Decorator)
        if can_carry and not isinstance(parent, cst.SimpleStatementSuite):
            return child
    raise AssertionError("every node of a module is in a statement")


def comments_above(module: Module, statement: cst.CSTNode) -> list[str]:
    """Return the comments above a statement, those in the head of the module included."""
    lines = [*cast(Statement, statement).leading_lines]
    if module.excerpt.is_first(statement):
        lines = [*module.tree.header, *lines]
    return [line.comment.value for line in lines if line.comment is not None]


def with_comments(statement: cst.CSTNode, comments: Sequence[str]) -> cst.CSTNode:
    """Return a statement with more comments right above it."""
    lines = [*cast(Statement, statement).leading_lines]
    lines += (cst.EmptyLine(comment=cst.Comment(comment)) for comment in comments)
    return statement.with_changes(leading_lines=lines)


def comment(identifier: str, reason: str) -> str:
    """Return the text of a comment."""
    return f"{MARK}{identifier}: {reason}"
