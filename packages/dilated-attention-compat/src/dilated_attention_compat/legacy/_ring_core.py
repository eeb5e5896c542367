"""The attention module inside the deprecated ring classes; it warns of nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from ._checks import check_positive
from ._head_core import HeadCore


class RingCore(HeadCore):
    """Constructor, attributes and numbers of the historical `RingDilatedAttention`."""

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
        """Record the options; see `RingDilatedAttention` for what they mean.

        Raises:
            TypeError: An entry of the two lists is not an int.
            ValueError: An option is out of range.
        """
        super().__init__(segment_lengths, dilation_rates, dropout, use_tf32, device, dtype)
        check_positive("block_size", block_size)
        if ring_size is not None:
            check_positive("ring_size", ring_size)
        distributed = dist.is_available() and dist.is_initialized()
        self.block_size = block_size
        self.world_size = dist.get_world_size() if distributed else 1
        self.rank = dist.get_rank() if distributed else 0
        self.ring_size = ring_size or self.world_size
        self.use_checkpointing = use_checkpointing

    def get_memory_info(self) -> dict[str, object]:
        """Return what holds of its memory; the claims about device counts are left out."""
        return {**super().get_memory_info(), "ring_size": self.ring_size}
