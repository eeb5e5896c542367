"""What takes the place of torchscale's `DilatedAttention`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import (
    AttentionWeights,
    attention_weights,
    dilated_attention,
    ring_dilated_attention,
)
from ..functional.decoding import decode_attention
from ..pattern import DilationPattern
from . import _incremental
from ._placement import Placement, Rows
from ._xpos import rotate


class TorchscaleAttention(nn.Module):
    """torchscale's multihead dilated attention: its parameters and its call, our operator.

        out_proj(inner_attn_ln(attention(xpos(q_proj(query)), xpos(k_proj(key)), v_proj(value))))

    The children are those of the module that it replaces, by name, order and identity, so
    `state_dict`, optimizers, their states and hooks stay valid.

    Args:
        children: `k_proj`, `v_proj`, `q_proj`, `out_proj`, and `inner_attn_ln` and `xpos`
            where there are any.
        num_heads: number of heads H.
        pattern: branches, with torchscale's rule and its three switches on.
        dropout: probability of dropping an attention weight in training.
        exact: the true operator, without the switches; may be changed at any time.
        placement: shared by the layers of a model.
    """

    out_proj: nn.Module
    inner_attn_ln: nn.Module | None
    xpos: nn.Module | None

    def __init__(
        self,
        children: dict[str, nn.Module],
        *,
        num_heads: int,
        pattern: DilationPattern,
        dropout: float,
        exact: bool,
        placement: Placement,
    ) -> None:
        super().__init__()
        for name, child in children.items():
            self.register_module(name, child)
        for name in ("inner_attn_ln", "xpos"):
            if name not in children:
                self.register_module(name, None)
        self.num_heads = num_heads
        self.trained_pattern = pattern
        self.dropout = dropout
        self.exact = exact
        self.placement = placement

    @property
    def pattern(self) -> DilationPattern:
        """The pattern in force."""
        if not self.exact:
            return self.trained_pattern
        return replace(self.trained_pattern, phantom_keys=False, detach_mix=False, shift_rows=False)

    def extra_repr(self) -> str:
        """What a printed model shows."""
        branches = [(x.segment_length, x.dilation_rate) for x in self.pattern.branches]
        return f"num_heads={self.num_heads}, branches={branches}, exact={self.exact}"

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        incremental_state: dict[str, Any] | None = None,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        rel_pos: Tensor | None = None,
        is_first_step: bool = False,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend as torchscale's module is called.

        Args:
            query: (b, rows, e); on a ring this rank's rows.
            key: likewise.
            value: likewise.
            incremental_state: this layer's dict of torchscale's key/value cache; rows of earlier
                calls are in it, and these are put into it. With `exact`, causal, on one device.
            key_padding_mask: (b, rows) bool, True = ignore. torchscale ignores the mask itself;
                here, with `exact`, no such key is seen, and without it each sequence is attended as
                if it came alone, for which padding must be at the end.
            attn_mask: must be None.
            rel_pos: must be None.
            is_first_step: the cache is empty and all rows of a prompt are passed.
            is_causal: a query sees no later key.

        Returns:
            ((b, rows, e), None), zeros before the last projections in padded rows without `exact`.

        Raises:
            ValueError: an argument that must be None and is not; padding elsewhere than at the end
                without `exact`; dropout in training without `exact`; a cache that cannot be served.
        """
        for name, given in (("attn_mask", attn_mask), ("rel_pos", rel_pos)):
            if given is not None:
                raise ValueError(
                    f"dilated attention takes no {name}: torchscale's kernel refuses it, too; who "
                    "sees whom is said by segment_length, dilated_ratio and is_causal"
                )
        if incremental_state is not None or is_first_step:
            state = _incremental.checked(
                incremental_state,
                is_first_step=is_first_step,
                exact=self.exact,
                is_causal=is_causal,
                ring=self.placement.comm is not None,
                dropped=self.training and self.dropout > 0,
                masked=key_padding_mask is not None or self.placement.padding is not None,
            )
            out = self._continue(query, key, value, state)
        else:
            rows = self.placement.rows(query, key_padding_mask)
            q, k = self._query_key(query, key, rows)
            out = self._attend(q, k, self._heads(value, "v_proj"), rows, is_causal)
        out = out.flatten(-2)
        if self.inner_attn_ln is not None:
            out = self.inner_attn_ln(out)
        projected: Tensor = self.out_proj(out)
        return projected, None

    def weights(
        self,
        query: Tensor,
        key: Tensor,
        rows: Tensor | Sequence[int],
        *,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> AttentionWeights:
        """`attention_weights` of this layer for inputs (b, n, e), on one device.

        Raises:
            ValueError: a layer on a ring; padding without `exact`.
        """
        if self.placement.comm is not None:
            raise ValueError(
                "attention weights need the whole sequence on one device; replace the attention "
                "without group= for them"
            )
        placed = self.placement.rows(query, key_padding_mask)
        q, k = self._query_key(query, key, placed)
        mask = None if placed.ignored is None else ~placed.ignored
        return attention_weights(q, k, self.pattern, rows, is_causal=is_causal, key_mask=mask)

    def _heads(self, x: Tensor, projection: str) -> Tensor:
        projected: Tensor = self.get_submodule(projection)(x)
        heads: Tensor = projected.unflatten(-1, (self.num_heads, -1))
        return heads

    def _query_key(self, query: Tensor, key: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        q, k = self._heads(query, "q_proj"), self._heads(key, "k_proj")
        return (q, k) if self.xpos is None else rotate(q, k, self.xpos, rows)

    def _continue(self, query: Tensor, key: Tensor, value: Tensor, state: dict[str, Any]) -> Tensor:
        """Attention of the rows after those of the cache."""
        q = self._heads(query, "q_proj")
        k, v = _incremental.append(state, self._heads(key, "k_proj"), self._heads(value, "v_proj"))
        n, m = k.shape[1], q.shape[1]
        if self.xpos is not None:
            q, _ = rotate(q, q, self.xpos, Rows(n - m, n))
            _, k = rotate(k, k, self.xpos, Rows(0, n))
        if m == n:
            out: Tensor = dilated_attention(q, k, v, self.pattern, is_causal=True)
            return out
        return decode_attention(q, k, v, self.pattern)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, rows: Rows, is_causal: bool) -> Tensor:
        if self.training and self.dropout > 0 and not self.exact:
            raise ValueError(
                f"attention_dropout={self.dropout} in training needs exact=True: torchscale drops "
                "weights inside each branch, by flash-attn's random numbers, and mixes branches by "
                "weights without dropout, which its kernel alone repeats. Set `dropout = 0.0` "
                "or `exact = True` on the modules that integrations.layers_of(model) names, or "
                "call model.eval()"
            )
        options: dict[str, Any] = {
            "is_causal": is_causal,
            "dropout_p": self.dropout if self.training else 0.0,
        }
        if rows.ignored is None:
            return self._call(q, k, v, **options)
        if self.exact:
            return self._call(q, k, v, key_mask=~rows.ignored, **options)
        if rows.lengths is None:
            raise ValueError(
                "without exact=True padding must be at the end of a sequence, and this "
                "key_padding_mask has it elsewhere; torchscale's operator has no key mask"
            )
        rank = 0 if self.placement.comm is None else self.placement.comm.rank
        outs = []
        for i, lengths in enumerate(rows.lengths):
            alone = [x[i : i + 1, : lengths[rank]] for x in (q, k, v)]
            out = alone[0] if sum(lengths) == 0 else self._call(*alone, lengths=lengths, **options)
            outs.append(F.pad(out, (0, 0, 0, 0, 0, q.shape[1] - lengths[rank])))
        return torch.cat(outs)

    def _call(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        lengths: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Tensor:
        out: Tensor
        if self.placement.comm is None:
            out = dilated_attention(q, k, v, self.pattern, **options)
            return out
        out = ring_dilated_attention(
            q, k, v, self.pattern, group=self.placement.group, shard_lengths=lengths, **options
        )
        return out
