"""How a call of an old name becomes a call of its replacement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What an automatic migration needs to know to rewrite a call.

    `old(a, b, x=c)` becomes `new(attention_type, first=a, second=b, x=c)`: positional arguments
    become keywords by `parameters`, `dropped` ones are left out, `renamed` ones renamed. A call
    with a `flagged` argument, with `*args` or with `**kwargs` is left as it is and reported.

    Attributes:
        target: `module:attribute` to import and call instead; the old name's own where the class
            stays and only arguments change.
        attention_type: First argument of the new call where the target is a factory; else empty.
        parameters: The historical parameters in their order, without `self`.
        dropped: Parameters without effect on the result: the new call leaves them out.
        renamed: Pairs (old parameter, new parameter).
        flagged: Parameters that no rewrite can carry over.
    """

    target: str
    attention_type: str = ""
    parameters: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    flagged: tuple[str, ...] = ()
