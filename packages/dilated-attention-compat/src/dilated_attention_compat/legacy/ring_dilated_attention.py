"""The deprecated `RingDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_at_caller, warn_deprecated
from ._legacy_module import LegacyModule
from ._ring_core import RingCore


@deprecated(
    "RingDilatedAttention is deprecated due to incorrect implementation. This version divides "
    "queries across devices, preventing proper memory savings. Please use RingDilatedAttentionV2 "
    "or create_multihead_dilated_attention('ring') instead. This implementation will be removed "
    "in v0.3.0.",
    category=None,
)
class RingDilatedAttention(LegacyModule, RingCore):
    """Deprecated: attention over the heads of one position, in place of attention over tokens.

    See `head_attention` for the equation. Construction gives one
    `RingAttentionDeprecationWarning`, and the first forward one `RuntimeWarning`, both at the
    caller's line.

    Options without effect on anything, accepted and kept as attributes: `use_tf32` (it used to
    switch TF32 on for the whole process), `block_size`, `ring_size`, `use_checkpointing`,
    `device` and `dtype`. With several ranks every rank computes the whole sequence and nothing
    is communicated: the historical ring failed on its first step and fell back to just that.

    The historical class kept a lock and memory pools; this one holds only its options.

    Args:
        segment_lengths: w_i, one per head group.
        dilation_rates: r_i, as many.
        dropout: Dropout on the weights over heads, in training.
        use_tf32: No effect.
        block_size: No effect.
        ring_size: No effect; the world size where None.
        use_checkpointing: No effect.
        device: No effect.
        dtype: No effect.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.

    Example:
        >>> import torch, warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     attention = RingDilatedAttention([8], [1])
        ...     x = torch.ones(1, 8, 2, 4)
        ...     attention(x, x, x).shape
        torch.Size([1, 8, 2, 4])
    """

    record: LegacyRecord = require("RingDilatedAttention")

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        use_tf32: bool = True,
        block_size: int = 1024,
        ring_size: int | None = None,
        use_checkpointing: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Warn, then record the options."""
        warn_deprecated(self.record)
        super().__init__(
            segment_lengths,
            dilation_rates,
            dropout,
            use_tf32,
            block_size,
            ring_size,
            use_checkpointing,
            device,
            dtype,
        )

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
