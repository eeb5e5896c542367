"""What the historical factory put around a block-sparse layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._record import LegacyRecord
from .._warn import warn_at_caller
from ._block_sparse_multihead import BlockSparseMultihead
from ._checks import check_sparse_pattern
from .configs._sparse_pattern_settings import SparsePatternSettings

_SEGMENT_LENGTHS = (2048, 4096, 8192)
_DILATION_RATES = (1, 2, 4)


class BlockSparseWrapper(nn.Module):
    """A block-sparse layer under the name `_impl`, so that its state_dict keys begin with it.

    Args:
        record: The record of the function that makes it.
        embed_dim: E.
        num_heads: h, a divisor of E.
        pattern_type: Which blocks are met.
        sparsity_ratio: No effect; it must lie between 0 and 1.
        options: The function's other keyword arguments. `segment_lengths`, `dilation_rates`,
            `dropout`, `bias`, `block_size`, `device` and `dtype` are passed on; the others are
            kept in `options_without_effect`, and a `UserWarning` names them.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        record: LegacyRecord,
        embed_dim: int,
        num_heads: int,
        pattern_type: str,
        sparsity_ratio: float,
        options: Mapping[str, Any],
    ) -> None:
        """Make the layer."""
        super().__init__()
        rest = dict(options)
        block_size: int = rest.pop("block_size", 128)
        segment_lengths: Sequence[int] = rest.pop("segment_lengths", None) or _SEGMENT_LENGTHS
        dilation_rates: Sequence[int] = rest.pop("dilation_rates", None) or _DILATION_RATES
        dropout: float = rest.pop("dropout", 0.0)
        bias: bool = rest.pop("bias", True)
        device: torch.device | str | None = rest.pop("device", None)
        dtype: torch.dtype | None = rest.pop("dtype", None)
        check_sparse_pattern(pattern_type, sparsity_ratio)
        if rest:
            warn_at_caller(
                f"{record.identifier}: {', '.join(sorted(rest))} never had an effect.", UserWarning
            )
        self.options_without_effect = rest
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self._impl = BlockSparseMultihead(
            embed_dim,
            num_heads,
            segment_lengths,
            dilation_rates,
            dropout,
            bias,
            SparsePatternSettings(pattern_type, sparsity_ratio, block_size),
            device=device,
            dtype=dtype,
        )
        self._impl.record = record

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, **options: Any
    ) -> Tensor | tuple[Tensor, dict[str, Any] | None]:
        """Attend; see `BlockSparseMultihead.forward`.

        Args:
            query: (b, n, E).
            key: The same shape.
            value: The same shape.
            **options: The other arguments of `BlockSparseMultihead.forward`, by keyword.

        Returns:
            out (b, n, E); with `need_weights` the pair (out, weights).

        Raises:
            ValueError: key or value is missing, or as `BlockSparseMultihead.forward`.
            TypeError: Dtypes differ.
        """
        if key is None or value is None:
            raise ValueError("key and value were always needed here; pass query, query, query")
        out: Tensor | tuple[Tensor, dict[str, Any] | None] = self._impl(
            query, key, value, **options
        )
        return out
