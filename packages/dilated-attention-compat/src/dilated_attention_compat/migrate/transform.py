"""Carrying a decision out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

import libcst as cst

from .arguments import rewritten
from .decide import Decision, leaves_module, symbol
from .imports import (
    Imported,
    import_of,
    rewritten_from,
    rewritten_import,
    without_repeats,
)
from .todo import with_comments
from .uses import Binding, Module, Use
from .vocabulary import PACKAGE, STILL_THERE, OldName, Treatment


class Rewriter(cst.CSTTransformer):
    """Rewrites what was decided and puts comments above statements; nothing else changes.

    Args:
        module: The module.
        decision: What to rewrite.
        comments: Comments to put above statements.

    Attributes:
        changed: The places that are rewritten, each with the old name that was there.
    """

    def __init__(
        self, module: Module, decision: Decision, comments: Mapping[cst.CSTNode, Sequence[str]]
    ) -> None:
        super().__init__()
        self._calls = decision.calls
        self._comments = comments
        self._nodes: dict[cst.CSTNode, cst.BaseExpression] = {}
        self._imports: dict[cst.CSTNode, list[cst.BaseSmallStatement]] = {}
        self._removed: set[cst.CSTNode] = set()
        self.changed: list[tuple[cst.CSTNode, OldName]] = []
        for use in module.uses:
            if use.name in decision.rewritten:
                new = _new_node(use)
                if not new.deep_equals(use.node):
                    self._nodes[use.node] = new
                if use.node in self._nodes or module.parents[use.node] in decision.calls:
                    self.changed.append((use.node, use.name))
        self._plan_imports(module, decision)

    def on_leave(  # type: ignore[override]
        self, original_node: cst.CSTNode, updated_node: cst.CSTNode
    ) -> cst.CSTNode | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNode]:
        """Replace a node, rewrite its arguments, remove it, or comment on it."""
        if original_node in self._removed:
            return cst.RemoveFromParent()
        if original_node in self._nodes:
            return self._nodes[original_node]
        if isinstance(updated_node, cst.Call) and original_node in self._calls:
            assert isinstance(original_node, cst.Call)
            return rewritten(updated_node, self._calls[original_node])
        if original_node in self._imports:
            return cst.FlattenSentinel(self._imports[original_node])
        comments = self._comments.get(original_node)
        if comments:
            updated_node = with_comments(updated_node, comments)
        if isinstance(updated_node, cst.SimpleStatementLine):
            return _lines(cast(cst.SimpleStatementLine, original_node), updated_node)
        return updated_node

    def _plan_imports(self, module: Module, decision: Decision) -> None:
        plans: defaultdict[cst.ImportFrom, dict[cst.ImportAlias, Imported]] = defaultdict(dict)
        modules: defaultdict[cst.Import, list[cst.ImportAlias]] = defaultdict(list)
        for binding in module.bindings:
            uses = [use for use in binding.uses if use.name in decision.rewritten]
            statement, alias = binding.statement, binding.alias
            if binding.name is not None:
                imported = None
                if binding.name in decision.rewritten:
                    imported = _imported(binding, binding.name, uses)
                if imported is not None and alias is not None:
                    assert isinstance(statement, cst.ImportFrom)
                    plans[statement][alias] = imported
                    self.changed.append((statement, binding.name))
            elif not uses:
                continue
            elif alias is None:
                self._imports[statement] = _instead_of_star(binding, uses)
            elif leaves_module(binding) and isinstance(statement, cst.Import):
                modules[statement].append(alias)
            elif leaves_module(binding) and isinstance(statement, cst.ImportFrom):
                plans[statement][alias] = Imported("")
        for statement, plan in plans.items():
            self._imports[statement] = rewritten_from(statement, plan)
        for statement, aliases in modules.items():
            self._imports[statement] = [rewritten_import(statement, aliases)]
        self._drop_repeats(module)

    def _drop_repeats(self, module: Module) -> None:
        """Import nothing again that an earlier statement of the same block imports."""
        given: defaultdict[cst.CSTNode, set[tuple[str, str, str]]] = defaultdict(set)
        for statement, line in module.parents.items():
            if not isinstance(statement, cst.Import | cst.ImportFrom):
                continue
            before = given[module.parents[line]]
            left = [
                new
                for old in self._imports.get(statement, [statement])
                if (new := without_repeats(old, before)) is not None
            ]
            if statement not in self._imports:
                continue
            if left:
                self._imports[statement] = left
            elif _is_bare(line) and line not in self._comments:
                self._removed.add(line)


def _imported(binding: Binding, name: OldName, uses: Sequence[Use]) -> Imported | None:
    """Return what an imported old name becomes, None where the import stays as it is."""
    module = binding.path.rpartition(".")[0]
    if name.treatment is Treatment.ADJUST:
        if module in (PACKAGE, *STILL_THERE):
            return None
        return Imported(name.home, (name.identifier,), frozenset((name.identifier,)))
    new = dict.fromkeys(symbol(use) for use in uses) or {name.reference: None}
    return Imported(name.home, tuple(new), frozenset((name.reference,)))


def _instead_of_star(binding: Binding, uses: Sequence[Use]) -> list[cst.BaseSmallStatement]:
    """Return explicit imports, beside the star where its module stays."""
    explicit = import_of(PACKAGE, list(dict.fromkeys(symbol(use) for use in uses)))
    return [explicit] if leaves_module(binding) else [binding.statement, explicit]


def _new_node(use: Use) -> cst.BaseExpression:
    """Return what stands in the place of a use."""
    node, binding = use.node, use.binding
    new = symbol(use) if use.name.treatment is Treatment.REPLACE else use.name.identifier
    if isinstance(node, cst.SimpleString):
        local = binding.local if binding.is_renamed else new
        value = re.sub(rf"\b{re.escape(binding.local)}\b", local, node.value)
        return node.with_changes(value=value)
    if isinstance(node, cst.Attribute):
        if not leaves_module(binding) and node.attr.value == new:
            return node
        base: cst.BaseExpression = cst.Name(PACKAGE)
        if binding.is_renamed:
            base = cst.Name(binding.local)
        return node.with_changes(value=base, attr=cst.Name(new))
    assert isinstance(node, cst.Name)
    keeps = binding.is_renamed and new == use.name.reference
    return node.with_changes(value=binding.local if keeps else new)


def _is_bare(line: cst.CSTNode) -> bool:
    """Whether a line holds one statement and no comment."""
    return (
        isinstance(line, cst.SimpleStatementLine)
        and len(line.body) == 1
        and line.trailing_whitespace.comment is None
        and all(above.comment is None for above in line.leading_lines)
    )


def _lines(
    original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine
) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
    """Put statements that one import became on lines of their own."""
    if len(original.body) > 1 or len(updated.body) == 1:
        return updated
    first, *others = updated.body
    return cst.FlattenSentinel(
        [updated.with_changes(body=[first]), *(cst.SimpleStatementLine([new]) for new in others)]
    )
