"""The deprecated `DistributedImprovedMultiheadDilatedAttention`, never constructed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from ._never_constructed import NeverConstructed


@deprecated(
    "DistributedImprovedMultiheadDilatedAttention is deprecated since v0.2.1: it never "
    "worked. Please use create_multihead_dilated_attention('improved_distributed') instead. "
    "It will be removed in v0.3.0.",
    category=None,
)
class DistributedImprovedMultiheadDilatedAttention(NeverConstructed):
    """Deprecated, and never constructed: it left an abstract method of its base undefined.

    It takes its historical arguments, gives one `RingAttentionDeprecationWarning`, and raises. No
    object of it ever existed, so there are no numbers, no state_dict and no forward to keep.

    Raises:
        RuntimeError: Always; it names the replacement.
    """

    record: LegacyRecord = require("DistributedImprovedMultiheadDilatedAttention")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        bias: bool = True,
        layer_norm: bool = True,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        use_tf32: bool = True,
        sequence_parallel: bool = False,
        model_parallel: bool = False,
        use_deepspeed: bool = True,
        use_gradient_checkpointing: bool = False,
        communication_backend: str = "nccl",
        cpu_offload: bool = False,
        use_8bit_optimizer: bool = False,
        use_flash_attention: bool = True,
        compile_model: bool = False,
    ) -> None:
        """Warn, then raise."""
        super().__init__()
