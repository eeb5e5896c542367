"""The deprecated `BlockSparseRingDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from ._block_sparse_core import BlockSparseCore
from .ring_dilated_attention import RingDilatedAttention  # type: ignore[deprecated]


@deprecated(
    "BlockSparseRingDilatedAttention is deprecated due to incorrect implementation. This "
    "version divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class BlockSparseRingDilatedAttention(BlockSparseCore, RingDilatedAttention):
    """Deprecated: attention over blocks of keys, each with a softmax of its own, added up.

    See `block_softmax_sum` for the equation. A block of queries meets, by `pattern_type`:

    - `dilated_sparse`: itself and the blocks r blocks away, r the first three `dilation_rates`;
    - `local_window`: the blocks at most `local_window_size // block_size // 2` away;
    - `global_local`: those, and the first `global_tokens // block_size` blocks of the sequence.

    Construction gives one `RingAttentionDeprecationWarning`, and the first forward in which a row
    meets more than one block one `RuntimeWarning`, both at the caller's line.

    Accepted and kept as attributes, without effect on the numbers: `segment_lengths`, `dropout`,
    `use_tf32`, `block_size` (the configuration's counts), `ring_size`, `use_checkpointing`,
    `device`, `dtype`, `use_adaptive_sparsity`, `quality_threshold`, `enable_memory_pool`,
    `enable_packed_comm`, `enable_hardware_opt`, and `sparsity_ratio` of the configuration. With
    several ranks every rank computes the whole sequence.

    Args:
        segment_lengths: No effect.
        dilation_rates: r_i; the first three are distances in blocks.
        sparse_config: A `SparsePatternConfig`, or a mapping with its fields; its defaults where
            None.
        sparsity_config: The same by another name; it wins where both are given.
        use_adaptive_sparsity: No effect.
        quality_threshold: No effect.
        enable_memory_pool: No effect.
        enable_packed_comm: No effect.
        enable_hardware_opt: No effect.
        dropout: No effect.
        use_tf32: No effect.
        block_size: No effect.
        ring_size: No effect.
        use_checkpointing: No effect.
        device: No effect.
        dtype: No effect.

    Raises:
        TypeError: An entry of the two lists is not an int, or a field of the configuration is
            unknown.
        ValueError: An option is out of range.
    """

    record: LegacyRecord = require("BlockSparseRingDilatedAttention")

    def forward(  # type: ignore[override]
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        is_causal: bool = False,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Any] | None]:
        """Attend; see `block_softmax_sum`.

        Args:
            q: (b, n, h, d); transpose SDPA's (b, h, n, d) with `.transpose(1, 2)`.
            k: The same shape.
            v: The same shape.
            is_causal: A token sees itself and earlier tokens only.
            return_attention_weights: Return the weights too. It stands where the other ring
                classes have `attention_mask`.

        Returns:
            (b, n, h, d); with weights the pair (out, weights), where weights has the keys
            `block_indices` (list of pairs (query block, key block)), `block_values` (list of
            (b, h, block_size, block_size) on the CPU), `block_size`, `shape` and `num_blocks`.

        Raises:
            ValueError: Shapes or devices differ, the block size does not divide n, or the pattern
                is unknown.
            TypeError: Dtypes differ.
        """
        out, weights, is_wrong = self.attend(q, k, v, is_causal, return_attention_weights)
        if is_wrong:
            self.announce_wrong_numbers()
        return (out, weights) if return_attention_weights else out
