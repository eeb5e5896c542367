"""The deprecated `BlockSparseRingMultiheadDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_deprecated
from ._block_sparse_multihead import BlockSparseMultihead
from .configs._sparse_pattern_settings import SparsePatternSettings


@deprecated(
    "BlockSparseRingMultiheadDilatedAttention is deprecated due to incorrect implementation. "
    "This version divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class BlockSparseRingMultiheadDilatedAttention(BlockSparseMultihead):
    """Deprecated: projections around block-sparse attention whose weights do not sum to 1.

    With A the map of `block_softmax_sum`, `out = W_o A(W_q x, W_k x, W_v x)`, then dropout. Keys
    of the state_dict: `q_proj`, `k_proj`, `v_proj`, `out_proj`, each `.weight` (E, E) and `.bias`
    (E); there are no norms. Initial values are PyTorch's own.

    Construction gives one `RingAttentionDeprecationWarning`, and the first forward in which a row
    meets more than one block one `RuntimeWarning`, both at the caller's line.

    Args:
        embed_dim: E.
        num_heads: h, a divisor of E.
        segment_lengths: No effect.
        dilation_rates: r_i; the first three are distances in blocks, for `dilated_sparse`.
        dropout: Dropout on the output, in training.
        bias: Whether the projections have a bias.
        sparse_config: A `SparsePatternConfig`, or a mapping with its fields; its defaults where
            None.
        batch_first: Whether inputs are (b, n, E) and not (n, b, E).
        **options: The keyword arguments of `BlockSparseRingDilatedAttention`, without effect on the
            numbers. `device` and `dtype` among them never reached the projections, which are
            float32 on the CPU until they are moved.

    Raises:
        TypeError: An entry of the two lists is not an int, or an option is unknown.
        ValueError: An option is out of range, or num_heads does not divide embed_dim.
    """

    record: LegacyRecord = require("BlockSparseRingMultiheadDilatedAttention")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        bias: bool = True,
        sparse_config: SparsePatternSettings | Mapping[str, Any] | None = None,
        batch_first: bool = True,
        **options: Any,
    ) -> None:
        """Warn, then make the parameters."""
        warn_deprecated(self.record)
        super().__init__(
            embed_dim,
            num_heads,
            segment_lengths,
            dilation_rates,
            dropout,
            bias,
            sparse_config,
            batch_first,
            **options,
        )
