"""The deprecated `OptimizedUnfoldRingDilatedAttention`."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .ring_dilated_attention import RingDilatedAttention  # type: ignore[deprecated]


@deprecated(
    "OptimizedUnfoldRingDilatedAttention is deprecated due to incorrect implementation. This "
    "version divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class OptimizedUnfoldRingDilatedAttention(RingDilatedAttention):
    """Deprecated: the function of `RingDilatedAttention`, with dropout on the output as well.

    Arguments, numbers and warnings are those of `RingDilatedAttention`.
    """

    record: LegacyRecord = require("OptimizedUnfoldRingDilatedAttention")
    drops_output: ClassVar[bool] = True
