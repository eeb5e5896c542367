"""The attention module inside the deprecated ring classes; it warns of nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ._checks import (
    check_divides,
    check_pattern,
    check_positive,
    check_probability,
    check_same,
)
from ._head_attention import head_attention


class RingCore(nn.Module):
    """Constructor, attributes and numbers of the historical `RingDilatedAttention`.

    Kept apart from the public class so that `RingMultiheadDilatedAttention`, which holds one,
    warns once and not twice. It has no parameters: its state_dict is empty.
    """

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
        super().__init__()
        check_pattern(segment_lengths, dilation_rates)
        check_probability(dropout)
        check_positive("block_size", block_size)
        if ring_size is not None:
            check_positive("ring_size", ring_size)
        distributed = dist.is_available() and dist.is_initialized()
        self.segment_lengths = list(segment_lengths)
        self.dilation_rates = list(dilation_rates)
        self.num_groups = len(self.segment_lengths)
        self.dropout = dropout
        self.use_tf32 = use_tf32
        self.block_size = block_size
        self.world_size = dist.get_world_size() if distributed else 1
        self.rank = dist.get_rank() if distributed else 0
        self.ring_size = ring_size or self.world_size
        self.use_checkpointing = use_checkpointing
        self.device = torch.device(
            device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
        )
        self.dtype = dtype if dtype is not None else torch.float32

    def forward(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
        """Attend over the heads at each position; see `head_attention`.

        Args:
            query: (b, n, h, d).
            key: The same shape.
            value: The same shape.
            is_causal: Mask later heads.

        Returns:
            (b, n, h, d).

        Raises:
            ValueError: Shapes or devices differ, a segment length does not divide n, or there
                are fewer heads than segment lengths.
            TypeError: Dtypes differ.
        """
        check_same(query, key, value, 4, "(batch, seq, heads, head_dim)")
        check_divides(query.shape[1], query.shape[2], self.segment_lengths)
        return head_attention(
            query,
            key,
            value,
            self.segment_lengths,
            self.dilation_rates,
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
        )

    def clear_cache(self, force: bool = False) -> None:
        """Do nothing: there are no caches any more, `force` or not."""

    def get_memory_info(self) -> dict[str, object]:
        """Return what holds of its memory; the claims about device counts are left out."""
        return {"memory_complexity": "O(n)", "ring_size": self.ring_size}

    def extra_repr(self) -> str:
        """Show the pattern and the dropout."""
        return (
            f"segment_lengths={self.segment_lengths}, dilation_rates={self.dilation_rates}, "
            f"dropout={self.dropout}"
        )
