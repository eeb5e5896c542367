"""The deprecated `DistributedImprovedDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_at_caller, warn_deprecated
from ._checks import check_divides
from ._improved_core import ImprovedCore
from ._legacy_module import LegacyModule


@deprecated(
    "DistributedImprovedDilatedAttention is deprecated since v0.2.1: it attends over heads, and "
    "no rank ever saw the keys of another. Please use RingDilatedAttentionV2 instead. It will be "
    "removed in v0.3.0.",
    category=None,
)
class DistributedImprovedDilatedAttention(LegacyModule, ImprovedCore):
    """Deprecated: attention over the heads of one position, on full tensors on every rank.

    See `head_attention` for the equation. Construction gives one
    `RingAttentionDeprecationWarning`, and the first forward one `RuntimeWarning`.

    With `sequence_parallel` every rank used to compute its own chunk and to gather the others'.
    Since no position sees another, that is what one rank computes for the whole sequence: here
    every rank computes the whole, and unlike history's gathered result it has gradients. The
    chunks must still be whole: n / world_size is checked as n is.

    Options without effect, accepted and kept as attributes: `use_tf32` (it used to switch TF32 on
    for the whole process), `model_parallel`, `use_flash_attention`, `dtype` and `device`. On CUDA
    history computed in bfloat16 whatever the inputs were; this class computes in their dtype.

    Args:
        segment_lengths: w_i, one per head group.
        dilation_rates: r_i, as many.
        dropout: Dropout on the weights and on the output, in training.
        use_tf32: No effect.
        sequence_parallel: Check that the ranks' chunks hold whole segments.
        model_parallel: No effect.
        use_flash_attention: No effect.
        dtype: No effect; it stood before `device`.
        device: No effect.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """

    record: LegacyRecord = require("DistributedImprovedDilatedAttention")

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        use_tf32: bool = True,
        sequence_parallel: bool = False,
        model_parallel: bool = False,
        use_flash_attention: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Warn, then record the options."""
        warn_deprecated(self.record)
        super().__init__(segment_lengths, dilation_rates, dropout, use_tf32, device, dtype)
        distributed = dist.is_available() and dist.is_initialized()
        self.world_size = dist.get_world_size() if distributed else 1
        self.rank = dist.get_rank() if distributed else 0
        self.sequence_parallel = sequence_parallel
        self.model_parallel = model_parallel
        self.use_flash_attention = use_flash_attention

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
            query: (b, n, h, d), the whole sequence on every rank; transpose SDPA's (b, h, n, d)
                with `.transpose(1, 2)`.
            key: The same shape.
            value: The same shape.
            is_causal: Mask later heads.
            attention_mask: Ignored, as it always was; a `UserWarning` says so.

        Returns:
            (b, n, h, d), the same on every rank.

        Raises:
            ValueError: Shapes or devices differ, a segment length does not divide n (or with
                `sequence_parallel` the ranks' chunks), or there are fewer heads than segment
                lengths.
            TypeError: Dtypes differ.
        """
        if attention_mask is not None:
            warn_at_caller(f"{self.record.identifier} ignores attention_mask.", UserWarning)
        out = super().forward(query, key, value, is_causal)
        self.announce_wrong_numbers()
        return out

    def check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Refuse what `forward` refuses."""
        super().check_inputs(query, key, value)
        if not self.sequence_parallel:
            return
        n, num_heads = query.shape[1:3]
        if n % self.world_size:
            raise ValueError(
                f"Sequence length ({n}) must be divisible by world_size ({self.world_size}) with "
                "sequence_parallel; pad the sequence"
            )
        check_divides(n // self.world_size, num_heads, self.segment_lengths)
