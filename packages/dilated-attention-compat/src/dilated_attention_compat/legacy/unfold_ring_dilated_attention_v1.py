"""The deprecated first `UnfoldRingDilatedAttention`, importable by its module path only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_at_caller, warn_deprecated
from ._checks import check_divides, check_positive, check_same
from ._head_attention import group_sizes
from ._head_core import HeadCore
from ._legacy_module import LegacyModule


@deprecated(
    "UnfoldRingDilatedAttention is deprecated due to incorrect implementation. This version "
    "divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class UnfoldRingDilatedAttention(LegacyModule, HeadCore):
    """Deprecated: attention over heads, with larger groups last and trouble at rate 1.

    As `head_attention`, with three differences: the larger groups of heads are the last ones; a
    group whose segment is longer than the sequence stays 0; and a group with rate 1 has positions
    and channels of each segment exchanged before it attends, and not after. With T that exchange,

        out[p, x] = (1/G) sum_s softmax_s(<T(q)[p, x], T(k)[p, s]> / sqrt(d)) T(v)[p, s]

    which needs w = d; for other segment lengths history raised, and so does this class. Dropout
    falls on the weights and again on the output. With a group nothing is communicated: the ring was
    never written.

    Construction gives one `RingAttentionDeprecationWarning`, and the first forward one
    `RuntimeWarning`, both at the caller's line.

    Args:
        segment_lengths: w_i, one per head group.
        dilation_rates: r_i, as many.
        dropout: Dropout on the weights and on the output, in training.
        ring_size: No effect; kept as an attribute.
        ring_group: No effect; kept as an attribute.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """

    record: LegacyRecord = require("ring_dilated_attention_unfold.UnfoldRingDilatedAttention")

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        ring_size: int = 1,
        ring_group: ProcessGroup | None = None,
    ) -> None:
        """Warn, then record the options."""
        warn_deprecated(self.record)
        super().__init__(segment_lengths, dilation_rates, dropout)
        check_positive("ring_size", ring_size)
        self.ring_size = ring_size
        self.ring_group = ring_group

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_causal: bool = False,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend over the heads at each position.

        Args:
            query: (b, n, h, d); transpose SDPA's (b, h, n, d) with `.transpose(1, 2)`.
            key: The same shape.
            value: The same shape.
            is_causal: Mask later heads.
            attention_mask: Ignored, as it always was; a `UserWarning` says so.

        Returns:
            (b, n, h, d).

        Raises:
            ValueError: Shapes or devices differ, a segment length not above n does not divide n,
                or there are fewer heads than segment lengths.
            TypeError: Dtypes differ.
            RuntimeError: A rate is 1 and its segment length is not d, as in history.
        """
        if attention_mask is not None:
            warn_at_caller(f"{self.record.identifier} ignores attention_mask.", UserWarning)
        check_same(query, key, value, 4, "(batch, seq, heads, head_dim)")
        n, num_heads = query.shape[1:3]
        fitting = [w for w in self.segment_lengths if w <= n]
        check_divides(n, num_heads, fitting, self.num_groups)
        out = torch.zeros_like(query)
        first = 0
        sizes = reversed(group_sizes(num_heads, self.num_groups))
        for i, (size, w, r) in enumerate(
            zip(sizes, self.segment_lengths, self.dilation_rates, strict=True)
        ):
            heads = slice(first, first + size)
            first += size
            if w <= n:
                self._add_group(out, (query, key, value), heads, w, r, i % r, is_causal)
        self.announce_wrong_numbers()
        return F.dropout(out / self.num_groups, self.dropout, self.training)

    def _add_group(
        self,
        out: Tensor,
        inputs: tuple[Tensor, Tensor, Tensor],
        heads: slice,
        w: int,
        r: int,
        offset: int,
        is_causal: bool,
    ) -> None:
        position = torch.arange(out.shape[1], device=out.device)
        rows = position[position % w % r == offset]
        q, k, v = (x[:, rows, heads] for x in inputs)
        if r == 1:
            q, k, v = (_exchanged(x, w) for x in (q, k, v))
        out[:, rows, heads] = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=is_causal
        )


def _exchanged(x: Tensor, w: int) -> Tensor:
    """Exchange positions and channels within segments of w = d."""
    if x.shape[3] != w:
        raise RuntimeError(
            f"this class never ran with dilation rate 1 and a segment length ({w}) other than the "
            f"head dimension ({x.shape[3]}); use RingDilatedAttentionV2"
        )
    segments: Tensor = x.unflatten(1, (-1, w))
    return segments.transpose(2, 4).flatten(1, 2)
