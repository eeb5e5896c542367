"""The attention module inside the deprecated block-sparse classes; it warns of nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._block_sparse import (
    Blocks,
    block_softmax_sum,
    dilated_sparse,
    global_local,
    local_window,
    up_to_diagonal,
)
from ._checks import check_positive, check_same
from ._ring_core import RingCore
from .configs._sparse_pattern_settings import SparsePatternSettings

_RATES_READ = 3


class BlockSparseCore(RingCore):
    """Constructor, attributes and numbers of the historical `BlockSparseRingDilatedAttention`."""

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        sparse_config: SparsePatternSettings | Mapping[str, Any] | None = None,
        *,
        sparsity_config: SparsePatternSettings | Mapping[str, Any] | None = None,
        use_adaptive_sparsity: object = None,
        quality_threshold: object = None,
        enable_memory_pool: object = None,
        enable_packed_comm: object = None,
        enable_hardware_opt: object = None,
        dropout: float = 0.0,
        use_tf32: bool = True,
        block_size: int = 1024,
        ring_size: int | None = None,
        use_checkpointing: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Record the options; see `BlockSparseRingDilatedAttention` for what they mean.

        Raises:
            TypeError: An entry of the two lists is not an int, or a field of the configuration is
                unknown.
            ValueError: An option is out of range.
        """
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
        given = sparse_config if sparsity_config is None else sparsity_config
        self.sparse_config = (
            given
            if isinstance(given, SparsePatternSettings)
            else SparsePatternSettings(**given or {})
        )
        check_positive("block_size", self.sparse_config.block_size)
        self.block_size = self.sparse_config.block_size
        self.use_adaptive_sparsity = use_adaptive_sparsity
        self.quality_threshold = quality_threshold
        self.enable_memory_pool = enable_memory_pool
        self.enable_packed_comm = enable_packed_comm
        self.enable_hardware_opt = enable_hardware_opt

    def blocks(self, num_blocks: int) -> Blocks:
        """Return which blocks of keys each block of queries meets.

        Raises:
            ValueError: `pattern_type` is none of the three that ever ran.
        """
        config = self.sparse_config
        radius = config.local_window_size // self.block_size // 2
        if config.pattern_type == "local_window":
            return local_window(num_blocks, radius)
        if config.pattern_type == "dilated_sparse":
            return dilated_sparse(num_blocks, self.dilation_rates[:_RATES_READ])
        if config.pattern_type == "global_local":
            return global_local(num_blocks, config.global_tokens // self.block_size, radius)
        raise ValueError(
            f"Unknown pattern type: {config.pattern_type}; local_window, dilated_sparse and "
            "global_local are the ones that ever ran"
        )

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_causal: bool = False,
        return_attention_weights: bool = False,
    ) -> tuple[Tensor, dict[str, Any] | None, bool]:
        """Attend; see `block_softmax_sum`.

        Returns:
            out (b, n, h, d); the weights as `forward` returns them, or None; whether some row met
            more than one block, so that out is wrong.

        Raises:
            ValueError: Shapes or devices differ, the block size does not divide n, or the pattern
                is unknown.
            TypeError: Dtypes differ.
        """
        check_same(query, key, value, 4, "(batch, seq, heads, head_dim)")
        b, n, h, _ = query.shape
        if n % self.block_size:
            raise ValueError(
                f"Sequence length {n} must be divisible by block size {self.block_size}; pad the "
                f"sequence to {-(-n // self.block_size) * self.block_size}"
            )
        num_blocks = n // self.block_size
        blocks = self.blocks(num_blocks)
        if is_causal:
            blocks = up_to_diagonal(blocks)
        indices: list[tuple[int, int]] = []
        values: list[Tensor] = []

        def collect(i: int, j: int, weights: Tensor) -> None:
            indices.append((i, j))
            values.append(weights.cpu())

        out = block_softmax_sum(
            query,
            key,
            value,
            blocks,
            self.block_size,
            is_causal=is_causal,
            collect=collect if return_attention_weights else None,
        )
        weights = {
            "block_indices": indices,
            "block_values": values,
            "block_size": self.block_size,
            "shape": (b, h, n, n),
            "num_blocks": (num_blocks, num_blocks),
        }
        is_wrong = any(len(columns) > 1 for columns in blocks)
        return out, weights if return_attention_weights else None, is_wrong
