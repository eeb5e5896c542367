"""`ImprovedDilatedAttention`: the LongNet operator on one device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pattern import DilationPattern
from ._checkpoint import CorrectedModule
from ._core import CommonCore
from ._engine import LocalAttention
from ._pattern import resolve_pattern
from ._warn import warn_without_effect


class ImprovedDilatedAttention(CorrectedModule, CommonCore):
    """Dilated attention by LongNet's rule: every head in every branch, one softmax over all keys.

    The historical class of this name took its softmax over the heads of one token; this one
    attends over tokens (arXiv 2307.02486, Eq. 8-10).

    Args:
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dropout: probability of dropping an attention weight in training.
        use_tf32: without effect, a FutureWarning where given.
        device: without effect, a FutureWarning where given.
        dtype: without effect, a FutureWarning where given.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form, `"longnet"` where None.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: contradicting or missing pattern arguments, or dropout outside [0, 1].
        TypeError: pattern values of the wrong kind.
    """

    def __init__(
        self,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        dropout: float = 0.0,
        use_tf32: bool | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__(
            LocalAttention(
                pattern=resolve_pattern(segment_lengths, dilation_rates, pattern, rule),
                softmax_scale=softmax_scale,
                dropout=dropout,
                backend=backend,
                deterministic=deterministic,
            )
        )
        warn_without_effect(self, use_tf32=use_tf32, device=device, dtype=dtype)
