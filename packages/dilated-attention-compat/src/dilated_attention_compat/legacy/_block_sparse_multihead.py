"""The layer with separate projections around block-sparse attention; it warns of nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .._warn import warn_at_caller
from ._block_sparse_core import BlockSparseCore
from ._checks import check_divisible_heads, check_probability, check_same
from ._legacy_module import LegacyModule
from .configs._sparse_pattern_settings import SparsePatternSettings


class BlockSparseMultihead(LegacyModule):
    """Constructor, parameters and numbers of `BlockSparseRingMultiheadDilatedAttention`."""

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
        """Make the parameters in the historical order, so that seeds carry over.

        Raises:
            TypeError: An entry of the two lists is not an int, or an option is unknown.
            ValueError: An option is out of range, or num_heads does not divide embed_dim.
        """
        super().__init__()
        check_divisible_heads(embed_dim, num_heads)
        check_probability(dropout)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.batch_first = batch_first
        self.dropout = dropout
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.dropout_layer = nn.Dropout(dropout)
        self.sparse_attention = BlockSparseCore(
            segment_lengths, dilation_rates, sparse_config, **options
        )
        self._always_return_tuple = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        average_attn_weights: bool = True,
    ) -> Tensor | tuple[Tensor, dict[str, Any] | None]:
        """Project, attend by blocks, project, drop.

        Args:
            query: (b, n, E), or (n, b, E) without `batch_first`.
            key: The same shape.
            value: The same shape.
            key_padding_mask: (b, n) bool, True = set k and v to 0 there. Such a key keeps its
                share of the softmax: its score becomes 0, not -inf.
            need_weights: Return the weights of the blocks too.
            attn_mask: Ignored, as it always was; a `UserWarning` says so.
            is_causal: A token sees itself and earlier tokens only.
            average_attn_weights: No effect: the weights are never averaged.

        Returns:
            out in the shape of query; with `need_weights` the pair (out, weights), weights as
            `BlockSparseRingDilatedAttention.forward` returns them.

        Raises:
            ValueError: Shapes or devices differ, the block size does not divide n, or the pattern
                is unknown.
            TypeError: Dtypes differ.
        """
        if attn_mask is not None:
            warn_at_caller(f"{self.record.identifier} ignores attn_mask.", UserWarning)
        check_same(query, key, value, 3, "(batch, seq, embed_dim)")
        inputs = (query, key, value)
        if not self.batch_first:
            inputs = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        q, k, v = (
            projection(x).unflatten(2, (self.num_heads, self.head_dim))
            for projection, x in zip((self.q_proj, self.k_proj, self.v_proj), inputs, strict=True)
        )
        if key_padding_mask is not None:
            hidden = key_padding_mask[:, :, None, None]
            k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
        attended, weights, is_wrong = self.sparse_attention.attend(q, k, v, is_causal, need_weights)
        out: Tensor = self.dropout_layer(self.out_proj(attended.flatten(2)))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if is_wrong:
            self.announce_wrong_numbers()
        if need_weights or self._always_return_tuple:
            return out, weights
        return out
