"""`DilatedAttention`: dilated attention over groups of heads, as history computed it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pattern import DilationPattern
from ._core import CommonCore
from ._engine import LocalAttention
from ._pattern import resolve_pattern
from ._warn import warn_without_effect


def historical_attention(
    segment_lengths: Sequence[int] | None,
    dilation_rates: Sequence[int] | None,
    *,
    pattern: DilationPattern | None,
    rule: str | None,
    softmax_scale: float | None,
    dropout: float,
    op: object,
    backend: str,
    deterministic: bool,
) -> LocalAttention:
    """The engine of the two classes whose short form is `head_groups`, divided by the branches.

    Raises:
        ValueError: `op` is given, or the pattern's arguments contradict each other.
    """
    if op is not None:
        raise ValueError(
            f"op chose an xFormers operator, which is not used here; got {op!r}. Leave it out, or "
            "name a backend with backend="
        )
    resolved = resolve_pattern(segment_lengths, dilation_rates, pattern, rule, "head_groups")
    short_form = pattern is None and rule is None
    return LocalAttention(
        pattern=resolved,
        output_scale=1.0 / len(resolved.branches) if short_form else 1.0,
        softmax_scale=softmax_scale,
        dropout=dropout,
        backend=backend,
        deterministic=deterministic,
    )


class DilatedAttention(CommonCore):
    """Dilated attention; the short form keeps the historical numbers.

    With G branches and the heads split into G contiguous groups (the first `H mod G` groups one
    head larger), group i attends in branch i only, at offset `i mod r_i`, and

        out = (1/G) * softmax(scale * q k^T) v     over the keys that branch i selects

    and 0 where no key is seen. With `rule=` or `pattern=` the output is that of
    `dilated_attention`, not divided by G.

    History applied dropout twice (weights and output); it acts on the weights once here.

    Args:
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        attention_dropout: probability of dropping an attention weight in training.
        op: an xFormers operator in history; anything but None raises.
        use_tf32: without effect, a FutureWarning where given.
        device: without effect, a FutureWarning where given.
        dtype: without effect, a FutureWarning where given.
        pattern: any `DilationPattern`, instead of the short form.
        rule: `"longnet"`, `"torchscale"` or `"head_groups"` for the short form, not divided by G.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: contradicting or missing pattern arguments, dropout outside [0, 1], or `op`.
        TypeError: pattern values of the wrong kind.
    """

    def __init__(
        self,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        softmax_scale: float | None = None,
        attention_dropout: float = 0.0,
        op: object = None,
        *,
        use_tf32: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__(
            historical_attention(
                segment_lengths,
                dilation_rates,
                pattern=pattern,
                rule=rule,
                softmax_scale=softmax_scale,
                dropout=attention_dropout,
                op=op,
                backend=backend,
                deterministic=deterministic,
            )
        )
        warn_without_effect(self, use_tf32=use_tf32, device=device, dtype=dtype)
