"""The deprecated `RingAttentionCorrect`, with the numbers it had."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_deprecated
from ._checks import check_positive, check_probability, check_same
from ._head_core import device_or_default
from ._legacy_module import LegacyModule

_BYTES_PER_MB = 1024**2


@deprecated(
    "RingAttentionCorrect is deprecated since v0.2.1: it normalises each chunk of keys on its "
    "own and adds the results. Please use RingAttentionCorrectV2 instead. It will be removed "
    "in v0.3.0.",
    category=None,
)
class RingAttentionCorrect(LegacyModule):
    """Deprecated: dense attention with a softmax for each chunk of keys, added up.

    The keys are cut into R = ring_size chunks of n / R. For a query p and a head,

        out[p] = sum_c sum_{t in chunk c} softmax_{t in chunk c}(<q[p], k[t]> / sqrt(d)) v[t]

    so that the weights of p sum to R. R = 1 is dense attention. With `is_causal` later keys are
    masked, and a row for which a whole chunk is masked is NaN, as in history: with R > 1 that is
    every row before the last chunk.

    Construction gives one `RingAttentionDeprecationWarning`, and the first forward with R > 1 one
    `RuntimeWarning`, both at the caller's line. `demonstrate_memory_savings`, which printed a
    formula, is left out.

    Args:
        dropout: Dropout on the weights, in training.
        device: No effect; kept as an attribute.
        dtype: No effect; kept as an attribute, float16 on CUDA and else float32 if None.

    Raises:
        ValueError: dropout lies outside 0 to 1.
    """

    record: LegacyRecord = require("RingAttentionCorrect")

    def __init__(
        self,
        dropout: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Warn, then record the options."""
        warn_deprecated(self.record)
        super().__init__()
        check_probability(dropout)
        self.dropout = dropout
        self.device = device_or_default(device)
        default = torch.float16 if self.device.type == "cuda" else torch.float32
        self.dtype = dtype or default

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        ring_size: int = 4,
        is_causal: bool = False,
        return_memory_stats: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, object]]:
        """Attend, one chunk of keys after another.

        Args:
            query: (b, n, h, d); transpose SDPA's (b, h, n, d) with `.transpose(1, 2)`.
            key: The same shape.
            value: The same shape.
            ring_size: R, a divisor of n.
            is_causal: Mask later keys.
            return_memory_stats: Return the sizes of query and output too.

        Returns:
            (b, n, h, d); with `return_memory_stats` the pair (out, stats). stats has the keys it
            had on the CPU; what CUDA added were peaks of the whole process and a formula.

        Raises:
            ValueError: Shapes or devices differ, or ring_size does not divide n.
            TypeError: Dtypes differ.
        """
        check_same(query, key, value, 4, "(batch, seq, heads, head_dim)")
        check_positive("ring_size", ring_size)
        n, d = query.shape[1], query.shape[3]
        if n % ring_size:
            raise ValueError(
                f"Sequence length {n} must be divisible by ring_size {ring_size}; pad the sequence"
            )
        position = torch.arange(n, device=query.device)
        out = torch.zeros_like(query)
        for k, v, t in zip(
            key.chunk(ring_size, 1),
            value.chunk(ring_size, 1),
            position.chunk(ring_size),
            strict=True,
        ):
            score = torch.einsum("bphd,bthd->bhpt", query, k) / d**0.5
            if is_causal:
                score = score.masked_fill(position[:, None] < t, -torch.inf)
            weight = F.dropout(score.softmax(-1), self.dropout, self.training)
            out = out + torch.einsum("bhpt,bthd->bphd", weight, v)
        if ring_size > 1:
            self.announce_wrong_numbers()
        if not return_memory_stats:
            return out
        stats: dict[str, object] = {
            "peak_memory_mb": 0,
            "chunk_memories_mb": [],
            "q_memory_mb": query.nbytes / _BYTES_PER_MB,
            "output_memory_mb": out.nbytes / _BYTES_PER_MB,
        }
        return out, stats
