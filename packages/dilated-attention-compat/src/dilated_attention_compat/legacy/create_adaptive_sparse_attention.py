"""The deprecated `create_adaptive_sparse_attention`."""

from __future__ import annotations

from typing import Any

from typing_extensions import deprecated

from .._registry import require
from .._warn import warn_deprecated
from ._block_sparse_wrapper import BlockSparseWrapper
from ._checks import check_sparsity_range

_DENSITY = 0.25


@deprecated(
    "create_adaptive_sparse_attention is deprecated since v0.2.1: the layer it makes never "
    "ran. Please use create_multihead_dilated_attention instead. It will be removed in "
    "v0.3.0.",
    category=None,
)
def create_adaptive_sparse_attention(
    embed_dim: int = 768,
    num_heads: int = 12,
    min_sparsity: float = 0.1,
    max_sparsity: float = 0.9,
    **kwargs: Any,
) -> BlockSparseWrapper:
    """Make a layer that has its parameters and no forward, as the historical factory made it.

    Its pattern type, `learned`, was never written: forward raises ValueError, as it always did.
    The state_dict has the keys of `create_block_sparse_attention`. The call gives one
    `RingAttentionDeprecationWarning`.

    Args:
        embed_dim: E.
        num_heads: h, a divisor of E.
        min_sparsity: No effect; below `max_sparsity`, both between 0 and 1.
        max_sparsity: No effect.
        **kwargs: As for `create_block_sparse_attention`.

    Returns:
        The layer, with the two sparsities among its `options_without_effect`.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """
    record = require("create_adaptive_sparse_attention")
    warn_deprecated(record)
    check_sparsity_range(min_sparsity, max_sparsity)
    layer = BlockSparseWrapper(record, embed_dim, num_heads, "learned", _DENSITY, kwargs)
    layer.options_without_effect |= {"min_sparsity": min_sparsity, "max_sparsity": max_sparsity}
    return layer
