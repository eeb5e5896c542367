"""The deprecated `BlockSparseRingDistributedDilatedAttention`, never constructed."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from ._never_constructed import NeverConstructed
from .configs.distributed_sparse_config import (  # type: ignore[deprecated]
    DistributedSparseConfig,
)


@deprecated(
    "BlockSparseRingDistributedDilatedAttention is deprecated due to incorrect implementation. "
    "This version divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class BlockSparseRingDistributedDilatedAttention(NeverConstructed):
    """Deprecated, and never constructed: its signature collided with the one it inherits.

    It takes its historical arguments, gives one `RingAttentionDeprecationWarning`, and raises. No
    object of it ever existed, so there are no numbers, no state_dict and no forward to keep.

    Raises:
        RuntimeError: Always; it names the replacement.
    """

    record: LegacyRecord = require("BlockSparseRingDistributedDilatedAttention")

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        distributed_config: DistributedSparseConfig | None = None,
        enable_deepspeed_integration: bool = True,
        enable_apex_optimization: bool = True,
        monitoring_interval: int = 100,
        **kwargs: object,
    ) -> None:
        """Warn, then raise."""
        super().__init__()
