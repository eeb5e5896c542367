"""`ImprovedDilatedAttention` with the numbers it had; the library's own class is corrected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_at_caller
from ._improved_core import ImprovedCore
from ._legacy_module import LegacyModule


class ImprovedDilatedAttention(LegacyModule, ImprovedCore):
    """Attention over the heads of one position, as the class of this name computed it until 0.2.0.

    See `head_attention` for the equation. The library's class of this name attends over tokens;
    this one is for reproducing old results, and says so with one `RuntimeWarning` at the first
    forward. Dropout falls on the weights over heads and again on the output.

    Options without effect, accepted and kept as attributes: `use_tf32` (it used to switch TF32 on
    for the whole process), `device` and `dtype`.

    Args:
        segment_lengths: w_i, one per head group.
        dilation_rates: r_i, as many.
        dropout: Dropout on the weights and on the output, in training.
        use_tf32: No effect.
        device: No effect.
        dtype: No effect.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """

    record: LegacyRecord = require("ImprovedDilatedAttention")

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        use_tf32: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Record the options."""
        super().__init__(segment_lengths, dilation_rates, dropout, use_tf32, device, dtype)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_causal: bool = False,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend over the heads at each position; see `head_attention`.

        Args:
            query: (b, n, h, d); transpose SDPA's (b, h, n, d) with `.transpose(1, 2)`.
            key: The same shape.
            value: The same shape.
            is_causal: Mask later heads.
            attention_mask: Ignored, as it always was; a `UserWarning` says so.

        Returns:
            (b, n, h, d).

        Raises:
            ValueError: Shapes or devices differ, a segment length does not divide n, or there
                are fewer heads than segment lengths.
            TypeError: Dtypes differ.
        """
        if attention_mask is not None:
            warn_at_caller(f"{self.record.identifier} ignores attention_mask.", UserWarning)
        out = super().forward(query, key, value, is_causal)
        self.announce_wrong_numbers()
        return out
