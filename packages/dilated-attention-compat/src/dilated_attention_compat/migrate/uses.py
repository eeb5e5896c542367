"""Where a module imports old names, and every place that uses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import libcst as cst
from libcst.metadata import (
    Access,
    GlobalScope,
    ImportAssignment,
    MetadataWrapper,
    PositionProvider,
    Scope,
    ScopeProvider,
)

from .excerpt import Excerpt
from .strings import cast_strings, exported_strings
from .syntax import dotted, mentioned
from .vocabulary import PACKAGE, OldName, Vocabulary


class Context(StrEnum):
    """What a use does with the old name."""

    CALL = "call"
    REFERENCE = "reference"
    BASE = "base"
    VALUE = "value"
    ANNOTATION_STRING = "annotation string"
    EXPORT = "export"


@dataclass(eq=False)
class Binding:
    """One name that an import binds, if old names can be reached through it.

    Attributes:
        statement: The import.
        alias: The part of the import that binds it; None for a star.
        path: Dotted path of what it stands for; for a star, of the module.
        name: The old name that it is; None for a module or a star.
        local: What the module calls it.
        scope: Where it is bound.
        elsewhere: Whether something else may be bound to the same name.
        other_uses: Whether it is used for more than old names.
        uses: Uses of old names.
    """

    statement: cst.Import | cst.ImportFrom
    alias: cst.ImportAlias | None
    path: str
    name: OldName | None
    local: str
    scope: Scope
    elsewhere: bool = False
    other_uses: bool = False
    uses: list[Use] = field(default_factory=list)

    @property
    def is_renamed(self) -> bool:
        """Whether the import says `as`."""
        return self.alias is not None and self.alias.asname is not None


@dataclass(eq=False)
class Use:
    """One place that uses an old name.

    Attributes:
        name: The old name.
        node: The expression that stands for it, or the string that names it.
        binding: The import that it comes from.
        context: What is done with it.
    """

    name: OldName
    node: cst.CSTNode
    binding: Binding
    context: Context


class Module:
    """A parsed module with what the migration asks about it.

    Args:
        excerpt: The part of it that is looked at.
        vocabulary: The old names to look for.

    Attributes:
        excerpt: That part.
        tree: Its nodes.
        parents: The node around each node.
        bindings: Imports through which old names can be reached, with their uses.
    """

    def __init__(self, excerpt: Excerpt, vocabulary: Vocabulary) -> None:
        self.excerpt = excerpt
        self.tree = excerpt.tree
        self._wrapper = MetadataWrapper(self.tree, unsafe_skip_copy=True)
        self._vocabulary = vocabulary
        self.parents = _parents(self.tree)
        in_scope: Mapping[cst.CSTNode, Scope | None] = self._wrapper.resolve(ScopeProvider)
        self._scopes = list({id(s): s for s in in_scope.values() if s is not None}.values())
        order = {node: place for place, node in enumerate(self.parents)}
        self.bindings = [*self._imported(), *self._starred(in_scope)]
        self.bindings.sort(key=lambda binding: order[binding.alias or binding.statement])
        exported = list(exported_strings(self.parents))
        typed = list(cast_strings(self.parents))
        for binding in self.bindings:
            name = binding.name
            if name is not None and isinstance(binding.scope, GlobalScope):
                binding.uses += (
                    Use(name, node, binding, Context.EXPORT)
                    for node in exported
                    if node.evaluated_value == binding.local
                )
                binding.uses += (
                    Use(name, node, binding, Context.ANNOTATION_STRING)
                    for node in typed
                    if binding.local in re.findall(r"\w+", node.value)
                )
            # LibCST hands accesses out as a set.
            binding.uses.sort(key=lambda use: order[use.node])

    @property
    def uses(self) -> list[Use]:
        """Every use of every old name."""
        return [use for binding in self.bindings for use in binding.uses]

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield the nodes around `node`, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def line(self, node: cst.CSTNode) -> int:
        """Return the line that a node begins on, from 1."""
        return self.excerpt.line(self._wrapper.resolve(PositionProvider)[node].start.line)

    def names_taken(self) -> set[str]:
        """Return the names that something else than an import of the package binds."""
        return {
            assignment.name
            for scope in self._scopes
            for assignment in scope.assignments
            if not (isinstance(assignment, ImportAssignment) and _from_package(assignment.node))
        }

    def starts_processes(self) -> bool:
        """Whether the module reaches for torch.distributed."""
        return any(
            isinstance(node, cst.Import | cst.ImportFrom | cst.Attribute)
            and any(path.startswith("torch.distributed") for path in mentioned(node))
            for node in self.parents
        )

    def _imported(self) -> Iterator[Binding]:
        for scope in self._scopes:
            for assignment in scope.assignments:
                found = _bound(assignment)
                if found is None or not _reaches(found[1], self._vocabulary):
                    continue
                assert isinstance(assignment, ImportAssignment)
                assert isinstance(assignment.node, cst.Import | cst.ImportFrom)
                name = self._vocabulary.by_path.get(found[1])
                binding = Binding(assignment.node, *found, name, assignment.name, scope)
                binding.elsewhere = len(set(map(_last_part, scope[assignment.name]))) > 1
                for access in assignment.references:
                    self._follow(binding, access)
                yield binding

    def _follow(self, binding: Binding, access: Access) -> None:
        """Record what one access of a binding uses."""
        node: cst.CSTNode = access.node
        path = binding.path
        by_path = self._vocabulary.by_path
        if isinstance(node, cst.SimpleString):
            if binding.name is not None:
                binding.uses.append(Use(binding.name, node, binding, Context.ANNOTATION_STRING))
            return
        while path not in by_path:
            parent = self.parents[node]
            if not (isinstance(parent, cst.Attribute) and parent.value is node):
                binding.other_uses = True
                return
            node, path = parent, f"{path}.{parent.attr.value}"
            if not _reaches(path, self._vocabulary):
                binding.other_uses = True
                return
        binding.elsewhere |= len(set(map(_last_part, access.referents))) > 1
        binding.uses.append(Use(by_path[path], node, binding, self._context(node)))

    def _starred(self, in_scope: Mapping[cst.CSTNode, Scope | None]) -> Iterator[Binding]:
        for statement, scope in in_scope.items():
            if not isinstance(statement, cst.ImportFrom) or statement.relative or scope is None:
                continue
            path = dotted(statement.module)
            known = path == PACKAGE or path in self._vocabulary.modules
            if not known or not isinstance(statement.names, cst.ImportStar):
                continue
            binding = Binding(statement, None, path, None, "*", scope)
            for node, name in self._undefined(self._vocabulary.starred(path)):
                binding.uses.append(Use(name, node, binding, self._context(node)))
            yield binding

    def _undefined(self, names: Mapping[str, OldName]) -> Iterator[tuple[cst.CSTNode, OldName]]:
        """Yield the accesses of `names` that no assignment explains."""
        found = {
            access.node: names[access.node.value]
            for scope in self._scopes
            for access in scope.accesses
            if isinstance(access.node, cst.Name)
            and access.node.value in names
            and not access.referents
        }
        yield from found.items()

    def _context(self, node: cst.CSTNode) -> Context:
        for parent in self.ancestors(node):
            if isinstance(parent, cst.Call):
                return Context.CALL if parent.func is node else Context.VALUE
            if isinstance(parent, cst.Annotation | cst.Comparison | cst.ComparisonTarget):
                return Context.REFERENCE
            if isinstance(parent, cst.Arg):
                return self._argument_context(parent)
            if isinstance(parent, cst.Attribute):
                named = parent.attr.value in ("__name__", "__qualname__", "__module__")
                return Context.REFERENCE if named else Context.VALUE
            # `A | B`, `(A, B)` and `list[A]` are what the place around them makes of them.
            if not isinstance(parent, _TRANSPARENT):
                break
        return Context.VALUE

    def _argument_context(self, argument: cst.Arg) -> Context:
        call = self.parents[argument]
        if isinstance(call, cst.ClassDef):
            return Context.BASE if argument.keyword is None else Context.VALUE
        assert isinstance(call, cst.Call)
        function = dotted(call.func)
        asks = function in ("isinstance", "issubclass") and call.args.index(argument) == 1
        casts = function in ("cast", "typing.cast") and call.args[0] is argument
        return Context.REFERENCE if asks or casts else Context.VALUE


_TRANSPARENT = (
    cst.BinaryOperation,
    cst.Tuple,
    cst.List,
    cst.Element,
    cst.Subscript,
    cst.SubscriptElement,
    cst.Index,
)


def _parents(tree: cst.CSTNode) -> dict[cst.CSTNode, cst.CSTNode]:
    """Return the node around each node, in the order of the source."""
    parents: dict[cst.CSTNode, cst.CSTNode] = {}
    rest = [(child, tree) for child in reversed(tree.children)]
    while rest:
        node, parent = rest.pop()
        parents[node] = parent
        rest += [(child, node) for child in reversed(node.children)]
    return parents


def _reaches(path: str, vocabulary: Vocabulary) -> bool:
    """Whether an old name is at `path` or below it."""
    return (
        path == PACKAGE
        or path in vocabulary.by_path
        or any(f"{module}.".startswith(f"{path}.") for module in vocabulary.modules)
    )


def _from_package(node: cst.CSTNode) -> bool:
    return any(path.partition(".")[0] == PACKAGE for path in mentioned(node))


def _bound(assignment: object) -> tuple[cst.ImportAlias, str] | None:
    """Return the alias that makes an assignment and the path that the bound name stands for."""
    if not isinstance(assignment, ImportAssignment) or not _from_package(assignment.node):
        return None
    node = assignment.node
    assert isinstance(node, cst.Import | cst.ImportFrom)
    if isinstance(node.names, cst.ImportStar):
        return None
    for alias, path in zip(node.names, mentioned(node), strict=True):
        local = alias.evaluated_alias
        if local is None:
            local = alias.evaluated_name if isinstance(node, cst.ImportFrom) else path
        if local == assignment.name:
            return alias, path
        if isinstance(node, cst.Import) and path.startswith(f"{assignment.name}."):
            # `import a.b` binds `a` too.
            return alias, assignment.name
    return None


def _last_part(assignment: object) -> object:
    """Return the last part of an imported path; other assignments each stand for themselves."""
    found = _bound(assignment)
    return assignment if found is None else found[1].rpartition(".")[2]
