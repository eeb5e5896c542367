"""The deprecated `RingDistributedDilatedAttention`, which could never be constructed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from ._never_constructed import NeverConstructed


@deprecated(
    "RingDistributedDilatedAttention is deprecated due to incorrect implementation. This "
    "version divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class RingDistributedDilatedAttention(NeverConstructed):
    """Deprecated, and never constructed: its constructor read an attribute that was not there.

    It takes its historical arguments, gives one `RingAttentionDeprecationWarning`, and raises. No
    object of it ever existed, so there are no numbers, no state_dict and no forward to keep.

    Raises:
        RuntimeError: Always; it names the replacement.
    """

    record: LegacyRecord = require("RingDistributedDilatedAttention")

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
        block_size: int = 1024,
        ring_size: int | None = None,
        use_checkpointing: bool = True,
        model_parallel: bool = False,
        sequence_parallel: bool = True,
        data_parallel: bool = True,
        use_deepspeed: bool = True,
        zero_stage: int = 3,
        cpu_offload: bool = False,
        nvme_offload: bool = False,
        use_8bit_optimizer: bool = False,
        use_gradient_compression: bool = False,
        activation_checkpointing: bool = True,
        communication_backend: str = "nccl",
        bucket_size: int = 25,
        overlap_communication: bool = True,
        enable_fault_tolerance: bool = True,
        checkpoint_interval: int = 1000,
        auto_resume: bool = True,
        enable_monitoring: bool = True,
        profile_memory: bool = False,
        log_level: str = "INFO",
        use_tf32: bool = True,
        use_flash_attention: bool = True,
        compile_model: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Warn, then raise."""
        super().__init__()
