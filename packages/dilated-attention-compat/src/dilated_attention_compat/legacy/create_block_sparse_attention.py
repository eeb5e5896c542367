"""The deprecated `create_block_sparse_attention`."""

from __future__ import annotations

from typing import Any

from typing_extensions import deprecated

from .._registry import require
from .._warn import warn_deprecated
from ._block_sparse_wrapper import BlockSparseWrapper


@deprecated(
    "create_block_sparse_attention is deprecated since v0.2.1: the layer it makes weights the "
    "tokens wrongly, and never read sparsity_ratio. Please use "
    "create_multihead_dilated_attention instead. It will be removed in v0.3.0.",
    category=None,
)
def create_block_sparse_attention(
    sparsity_ratio: float = 0.9,
    pattern_type: str = "dilated_sparse",
    embed_dim: int = 768,
    num_heads: int = 12,
    **kwargs: Any,
) -> BlockSparseWrapper:
    """Make a block-sparse layer as the historical factory made it.

    It is `BlockSparseRingMultiheadDilatedAttention` under the name `_impl`, which its state_dict
    keys begin with; forward needs key and value. The call gives one
    `RingAttentionDeprecationWarning`, and the first wrong forward one `RuntimeWarning`.

    Args:
        sparsity_ratio: No effect; it must lie between 0 and 1.
        pattern_type: `dilated_sparse`, `local_window` or `global_local`. Others that the historical
            configuration knew pass here and raise in forward.
        embed_dim: E.
        num_heads: h, a divisor of E.
        **kwargs: `segment_lengths` (no effect), `dilation_rates`, `dropout`, `bias`, `block_size`,
            `device` and `dtype` (the last two never reached the projections). Everything else was
            dropped: it is kept in the attribute `options_without_effect`, and a `UserWarning` names
            it.

    Returns:
        The layer.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """
    record = require("create_block_sparse_attention")
    warn_deprecated(record)
    return BlockSparseWrapper(record, embed_dim, num_heads, pattern_type, sparsity_ratio, kwargs)
