"""Which old names of a module can be rewritten, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import GlobalScope

from .._record import LegacyRecord
from .arguments import changes, literal_argument, refusal
from .importers import EVERYTHING
from .instances import misuses
from .strings import looked_up, paths_in_strings
from .uses import Binding, Context, Module, Use
from .vocabulary import ATTENTION_TYPES, PACKAGE, STILL_THERE, OldName, Treatment, Vocabulary

_VISIBLE = (Context.CALL, Context.BASE, Context.VALUE)


@dataclass(frozen=True)
class Problem:
    """One place that a person has to look at.

    Attributes:
        subject: Name of the record that says more.
        node: The place.
        reason: Why nothing was rewritten, and what to do.
    """

    subject: str
    node: cst.CSTNode
    reason: str


@dataclass
class Decision:
    """What is done to a module.

    Attributes:
        rewritten: Old names all of whose uses are rewritten.
        calls: Calls whose arguments change, with the old name they call.
        problems: What is flagged.
    """

    rewritten: set[OldName] = field(default_factory=set)
    calls: dict[cst.Call, OldName] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def flag(self, record: LegacyRecord, node: cst.CSTNode, reason: str) -> None:
        """Note a problem, once for one place."""
        problem = Problem(record.name, node, reason)
        if problem not in self.problems:
            self.problems.append(problem)


def decide(
    module: Module,
    vocabulary: Vocabulary,
    *,
    star: bool,
    is_package: bool,
    taken: Mapping[str, str],
) -> Decision:
    """Decide for each old name of a module what is rewritten and what is flagged.

    Of a name that is replaced all uses are rewritten, or none is: half of them would leave
    `isinstance` asking for a class that part of the module no longer makes. Of a name that stays,
    each call is judged alone.

    Args:
        module: The module.
        vocabulary: The old names.
        star: Whether names that nothing else defines come from a star import.
        is_package: Whether the module is an `__init__.py`, whose imports others import.
        taken: Which file imports a name from this one, by name; `*` for all names.
    """
    decision = Decision()
    for binding in module.bindings:
        _judge_binding(binding, vocabulary, decision, star=star, is_package=is_package, taken=taken)
    for use in module.uses:
        _judge_use(module, vocabulary, use, decision)
    for name, node, reason in misuses(module):
        if name.treatment is not Treatment.FLAG:
            decision.flag(name.record, node, reason)
    for name, node in looked_up(module.parents, vocabulary, {use.node for use in module.uses}):
        if name.treatment is not Treatment.ADJUST:
            replaced = name.treatment is Treatment.REPLACE
            instead = f"{name.reference} replaces it" if replaced else name.verdict
            decision.flag(name.record, node, f"looked up at run time; {instead}")
    for name, string, path in paths_in_strings(module.parents, vocabulary):
        if name.treatment is not Treatment.ADJUST or path.rpartition(".")[0] != PACKAGE:
            reason = "a path in a string is not followed; what it leads to changes"
            decision.flag(name.record, string, reason)
    _judge_surroundings(module, decision)
    imported = {binding.name for binding in module.bindings if binding.name is not None}
    decision.rewritten = {
        name
        for name in imported | {use.name for use in module.uses}
        if name.treatment is not Treatment.FLAG and not _is_blocked(name, decision.problems)
    }
    while _split_module(module, decision):
        pass
    decision.calls = {c: n for c, n in decision.calls.items() if n in decision.rewritten}
    return decision


def _judge_binding(
    binding: Binding,
    vocabulary: Vocabulary,
    decision: Decision,
    *,
    star: bool,
    is_package: bool,
    taken: Mapping[str, str],
) -> None:
    """Flag an import that cannot be changed, or that nothing in this file explains."""
    names = list(dict.fromkeys(use.name for use in binding.uses))
    if binding.alias is None:
        if not names and binding.path != PACKAGE and binding.path not in STILL_THERE:
            names = list(vocabulary.starred(binding.path).values())[:1]
            star = False
        if not star:
            for name in names:
                reason = "a star import is not followed without --star; import the name itself"
                decision.flag(name.record, binding.statement, reason)
        return
    imported = binding.name
    if imported is not None and imported.treatment is Treatment.FLAG:
        if not any(use.context in _VISIBLE for use in binding.uses):
            decision.flag(imported.record, binding.statement, imported.verdict)
        return
    if imported is not None and imported.treatment is Treatment.REPLACE:
        exports = [use for use in binding.uses if use.context is Context.EXPORT]
        same_name = binding.is_renamed and binding.local == imported.identifier
        importer = taken.get(binding.local) or (exports and taken.get(EVERYTHING))
        if importer and isinstance(binding.scope, GlobalScope):
            reason = f"{importer} imports it from here; rename it there too"
            decision.flag(imported.record, binding.statement, reason)
        elif (exports and binding.is_renamed) or (not exports and (is_package or same_name)):
            reason = "exported from here under a name that others import; rename it there too"
            decision.flag(imported.record, binding.statement, reason)
    for name in names:
        if name.treatment is Treatment.FLAG:
            continue
        if binding.elsewhere:
            reason = f"{binding.local} is bound in more than one way in this file"
            decision.flag(name.record, binding.statement, reason)
        elif leaves_module(binding) and binding.other_uses:
            reason = f"{binding.local} is used for other things than this name too"
            decision.flag(name.record, binding.statement, reason)


def _judge_use(module: Module, vocabulary: Vocabulary, use: Use, decision: Decision) -> None:
    name = use.name
    if name.treatment is Treatment.FLAG:
        if use.context in _VISIBLE:
            decision.flag(name.record, use.node, name.verdict)
    elif use.context is Context.CALL:
        _judge_call(module, vocabulary, use, decision)
    elif use.context is Context.BASE and name.record.rewrite is not None:
        replaced = name.treatment is Treatment.REPLACE
        instead = f"base it on {name.reference}, whose" if replaced else "the class stays, but its"
        reason = f"a subclass; {instead} internals and arguments are others"
        decision.flag(name.record, use.node, reason)
    elif use.context is Context.VALUE and name.treatment is Treatment.REPLACE:
        reason = f"used otherwise than by a call; {name.reference} replaces it"
        decision.flag(name.record, use.node, reason)


def _judge_call(module: Module, vocabulary: Vocabulary, use: Use, decision: Decision) -> None:
    call = module.parents[use.node]
    assert isinstance(call, cst.Call)
    name = use.name
    if name.record.rewrite is None:
        return
    if name.record.rewrite.parameters[:1] == ("attention_type",):
        attention_type = literal_argument(call, "attention_type", 0)
        if attention_type is None:
            if changes(call, name) or refusal(call, name):
                reason = "the attention type is not visible here, so neither are its options"
                decision.flag(name.record, use.node, reason)
            return
        unserved = vocabulary.unserved_type(name.identifier, attention_type)
        if unserved is not None:
            decision.flag(unserved, use.node, f"gone; use {unserved.replacement}")
            return
        known = attention_type.removeprefix("multihead_") or "auto"
        if (name.identifier, known) not in ATTENTION_TYPES:
            return
    reason = refusal(call, name)
    in_string = any(isinstance(around, cst.FormattedString) for around in module.ancestors(call))
    if not reason and in_string and changes(call, name):
        reason = "a call inside an f-string, where quotes may clash"
    if reason:
        decision.flag(name.record, use.node, reason)
    elif changes(call, name):
        decision.calls[call] = name


def _judge_surroundings(module: Module, decision: Decision) -> None:
    """Flag names whose replacement this module cannot take as it is."""
    replaced = [use for use in module.uses if use.name.treatment is Treatment.REPLACE]
    if not replaced:
        return
    taken = module.names_taken()
    processes = module.starts_processes()
    for use in replaced:
        new = symbol(use)
        if new in taken and new != use.binding.local:
            reason = f"{new}, which replaces it, is the name of something else in this file"
            decision.flag(use.name.record, use.binding.statement, reason)
        call = module.parents[use.node]
        if not (processes and use.context is Context.CALL and isinstance(call, cst.Call)):
            continue
        if not any(a.keyword and a.keyword.value == "ring_group" for a in call.args):
            reason = "torch.distributed is in use: say group= (one ring) or simulate=True"
            decision.flag(use.name.record, use.node, reason)


def _is_blocked(name: OldName, problems: Sequence[Problem]) -> bool:
    return any(
        problem.subject == name.record.name
        and (
            name.treatment is Treatment.REPLACE
            or isinstance(problem.node, cst.Import | cst.ImportFrom)
        )
        for problem in problems
    )


def symbol(use: Use) -> str:
    """Return the new name that a use of a replaced name needs."""
    return use.name.callee if use.context is Context.CALL else use.name.reference


def leaves_module(binding: Binding) -> bool:
    """Whether an imported module is one that the new names are not in."""
    return binding.name is None and binding.path not in (PACKAGE, *STILL_THERE)


def _split_module(module: Module, decision: Decision) -> bool:
    """Withdraw names that share an imported old module with one that is not rewritten."""
    for binding in module.bindings:
        names = {use.name for use in binding.uses}
        leaving = names & decision.rewritten
        if binding.alias is None or not leaves_module(binding) or leaving in (names, set()):
            continue
        reason = f"shares the import of {binding.local} with a name that is not rewritten"
        for name in leaving:
            decision.flag(name.record, binding.statement, reason)
        decision.rewritten -= leaving
        return True
    return False
