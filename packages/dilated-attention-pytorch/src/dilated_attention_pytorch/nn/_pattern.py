"""From the modules' short form (segment lengths, dilation rates) to a `DilationPattern`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..pattern import DilationPattern

_RULES: Final[dict[str, Callable[[Sequence[int], Sequence[int]], DilationPattern]]] = {
    "longnet": DilationPattern.longnet,
    "torchscale": DilationPattern.torchscale,
    "head_groups": DilationPattern.head_groups,
}


def resolve_pattern(
    segment_lengths: Sequence[int] | None,
    dilation_rates: Sequence[int] | None,
    pattern: DilationPattern | None,
    rule: str | None,
    default_rule: str = "longnet",
) -> DilationPattern:
    """The pattern of a module.

    Args:
        segment_lengths: w of each branch, None where `pattern` is given.
        dilation_rates: r of each branch, None where `pattern` is given.
        pattern: a whole pattern instead of the short form.
        rule: offset rule of the short form, None for the module's own.
        default_rule: the module's own rule.

    Raises:
        ValueError: both forms, neither form, half of the short form, or an unknown rule.
        TypeError: `pattern` is no `DilationPattern`.
    """
    if pattern is not None:
        if not isinstance(pattern, DilationPattern):
            raise TypeError(
                f"pattern must be a DilationPattern, got {type(pattern).__name__}; build one with "
                "DilationPattern.longnet(segment_lengths, dilation_rates)"
            )
        if segment_lengths is not None or dilation_rates is not None or rule is not None:
            raise ValueError(
                "pattern= already holds branches and offsets; leave out segment_lengths, "
                f"dilation_rates and rule, got segment_lengths={segment_lengths!r}, "
                f"dilation_rates={dilation_rates!r}, rule={rule!r}"
            )
        return pattern
    if segment_lengths is None or dilation_rates is None:
        raise ValueError(
            "expected segment_lengths and dilation_rates, or pattern=; got "
            f"segment_lengths={segment_lengths!r}, dilation_rates={dilation_rates!r}"
        )
    name = default_rule if rule is None else rule
    if name not in _RULES:
        raise ValueError(
            f"unknown rule {name!r}; expected one of {sorted(_RULES)}, or an explicit offset table "
            "through pattern=DilationPattern.from_branches(...)"
        )
    return _RULES[name](segment_lengths, dilation_rates)
