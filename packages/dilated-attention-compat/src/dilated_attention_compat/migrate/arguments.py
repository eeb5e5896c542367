"""The arguments of one call: whether they can be carried over, and how they are."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import libcst as cst

from .._rewrite import Rewrite
from .vocabulary import OldName, Treatment

_EQUAL = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))


def refusal(call: cst.Call, name: OldName) -> str:
    """Return why a call cannot be rewritten, or an empty string.

    Args:
        call: The call as it stands.
        name: The old name that it calls; it has a rewrite.
    """
    rewrite = name.record.rewrite
    assert rewrite is not None
    replaced = name.treatment is Treatment.REPLACE
    if any(argument.star for argument in call.args):
        hidden = replaced or changes(call, name)
        return "* or ** hides which arguments are passed" if hidden else ""
    for index in range(len(call.args)):
        parameter = _parameter(call, index, rewrite)
        if parameter == "":
            if replaced:
                return f"takes at most {len(rewrite.parameters)} positional arguments"
        elif parameter in rewrite.flagged and not is_empty(call.args[index]):
            return f"{parameter}= has no counterpart"
        elif parameter not in rewrite.parameters and replaced:
            return f"{parameter}= was none of its arguments"
    if _look_swapped(call, rewrite):
        return "segment_lengths and dilation_rates look swapped"
    return ""


def changes(call: cst.Call, name: OldName) -> bool:
    """Whether the arguments of a call have to change."""
    rewrite = name.record.rewrite
    if rewrite is None:
        return False
    if name.treatment is Treatment.REPLACE:
        return True
    return any(_parameter(call, index, rewrite) in rewrite.dropped for index in _plain(call))


def rewritten(call: cst.Call, name: OldName) -> cst.Call:
    """Return the call with the arguments that the new name takes.

    Args:
        call: A call that `refusal` lets pass, its parts already rewritten.
        name: The old name that it called.
    """
    rewrite = name.record.rewrite
    assert rewrite is not None
    renamed = dict(rewrite.renamed)
    arguments: list[cst.Arg] = []
    by_keyword = name.treatment is Treatment.REPLACE
    for index, argument in enumerate(call.args):
        parameter = _parameter(call, index, rewrite)
        unset = parameter in rewrite.flagged and name.treatment is Treatment.REPLACE
        if parameter in rewrite.dropped or unset:
            # What follows a dropped positional argument has lost its place.
            by_keyword = True
            arguments = _without(arguments, argument, is_last=index == len(call.args) - 1)
            continue
        if argument.keyword is not None:
            keyword = argument.keyword.with_changes(value=renamed.get(parameter, parameter))
            argument = argument.with_changes(keyword=keyword)
        elif by_keyword:
            argument = argument.with_changes(
                keyword=cst.Name(renamed.get(parameter, parameter)), equal=_EQUAL
            )
        arguments.append(argument)
    if name.treatment is Treatment.REPLACE and rewrite.attention_type:
        arguments = [_attention_type(call, rewrite.attention_type, alone=not arguments), *arguments]
    return call.with_changes(args=arguments)


def is_empty(argument: cst.Arg) -> bool:
    """Whether an argument is None or False, as if it were not given."""
    value = argument.value
    return isinstance(value, cst.Name) and value.value in ("None", "False")


def literal_argument(call: cst.Call, name: str, position: int) -> str | None:
    """Return a string argument given as a literal, None where it is something else.

    Returns:
        The string; an empty string where the argument is not given.
    """
    for index, argument in enumerate(call.args):
        given = argument.keyword.value if argument.keyword else index == position and name
        if argument.star or given != name:
            continue
        value = argument.value
        if isinstance(value, cst.SimpleString) and isinstance(value.evaluated_value, str):
            return value.evaluated_value
        return None
    return ""


def _plain(call: cst.Call) -> list[int]:
    """Return the positions of arguments before the first star, and of all keywords."""
    first = next((i for i, a in enumerate(call.args) if a.star), len(call.args))
    return [i for i, a in enumerate(call.args) if not a.star and (a.keyword or i < first)]


def _parameter(call: cst.Call, index: int, rewrite: Rewrite) -> str:
    """Return the parameter an argument is for; an empty string where there is none."""
    keyword = call.args[index].keyword
    if keyword is not None:
        return keyword.value
    return rewrite.parameters[index] if index < len(rewrite.parameters) else ""


def _without(kept: list[cst.Arg], dropped: cst.Arg, *, is_last: bool) -> list[cst.Arg]:
    """Return the arguments before a dropped one, closing the list where it was the last.

    A comment on the line of the argument before stays; one on the dropped line goes.
    """
    if not (kept and is_last):
        return kept
    last = kept[-1]
    closing: cst.BaseParenthesizableWhitespace = dropped.whitespace_after_arg
    if isinstance(dropped.comma, cst.Comma):
        closing = dropped.comma.whitespace_after
    opened = last.comma.whitespace_after if isinstance(last.comma, cst.Comma) else closing
    if isinstance(opened, cst.ParenthesizedWhitespace):
        if isinstance(closing, cst.ParenthesizedWhitespace):
            closing = closing.with_changes(first_line=opened.first_line)
        elif opened.first_line.comment is not None:
            closing = opened
    if isinstance(dropped.comma, cst.Comma):
        comma = dropped.comma.with_changes(whitespace_after=closing)
        return [*kept[:-1], last.with_changes(comma=comma)]
    bare = last.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=closing)
    return [*kept[:-1], bare]


def _attention_type(call: cst.Call, attention_type: str, *, alone: bool) -> cst.Arg:
    """Return the factory's first argument, on a line of its own where the others have theirs."""
    value = cst.SimpleString(f'"{attention_type}"')
    if alone:
        return cst.Arg(value)
    after: cst.BaseParenthesizableWhitespace = cst.SimpleWhitespace(" ")
    first = call.args[0].comma
    own_lines = isinstance(first, cst.Comma) and isinstance(
        first.whitespace_after, cst.ParenthesizedWhitespace
    )
    if own_lines and isinstance(call.whitespace_before_args, cst.ParenthesizedWhitespace):
        after = call.whitespace_before_args.with_changes(
            first_line=cst.TrailingWhitespace(), empty_lines=[]
        )
    return cst.Arg(value, comma=cst.Comma(whitespace_after=after))


def _look_swapped(call: cst.Call, rewrite: Rewrite) -> bool:
    """Whether both lists are literal and every rate exceeds its segment length."""
    values: dict[str, Sequence[object]] = {}
    for index, argument in enumerate(call.args):
        parameter = _parameter(call, index, rewrite)
        if parameter in ("segment_lengths", "dilation_rates"):
            values[parameter] = _numbers(argument.value)
    pairs = list(
        zip(values.get("segment_lengths", ()), values.get("dilation_rates", ()), strict=False)
    )
    return bool(pairs) and all(
        isinstance(w, int) and isinstance(r, int) and r > w for w, r in pairs
    )


def _numbers(node: cst.BaseExpression) -> Sequence[object]:
    if not isinstance(node, cst.List | cst.Tuple):
        return ()
    try:
        found = ast.literal_eval(cst.Module([]).code_for_node(node))
    except ValueError:
        return ()
    return found if isinstance(found, list | tuple) else ()
