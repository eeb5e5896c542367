"""`MultiheadDilatedAttention`: separate projections around the historical core."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pattern import DilationPattern
from ._dilated_attention import historical_attention
from ._separate import SeparateProjections
from ._warn import warn_if_swapped


class MultiheadDilatedAttention(SeparateProjections):
    """Multihead dilated attention with separate projections; history's numbers and keys.

        q, k, v = q_ln(q_proj(query)), k_ln(k_proj(key)), v_proj(value)
        out = out_proj(q_ln(attend(q, k, v)))

    `attend` is `DilatedAttention`: the short form is `head_groups` divided by the number of
    branches; with `rule=` or `pattern=` it is never scaled. `layer_norm=False` leaves out every
    `q_ln` and `k_ln`. The state_dict holds `q_proj`, `k_proj`, `v_proj`, `out_proj`, `q_ln`,
    `k_ln`.

    Args:
        embed_dim: E, a multiple of `num_heads`.
        num_heads: query heads H.
        dilation_rates: r of each branch; by position it stands before `segment_lengths`.
        segment_lengths: w of each branch.
        dropout: probability of dropping an attention weight in training.
        bias: biases in all projections.
        layer_norm: own `q_ln` and `k_ln`.
        layer_norm_eps: their epsilon.
        gamma_init: gain of the initial weights of all four projections.
        device: of the parameters.
        dtype: of the parameters.
        op: an xFormers operator in history; anything but None raises.
        num_kv_heads: key/value heads, a divisor of `num_heads`; `num_heads` where None.
        pattern: any `DilationPattern`, instead of the short form.
        rule: `"longnet"`, `"torchscale"` or `"head_groups"` for the short form, not scaled.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: wrong sizes, contradicting or missing pattern arguments, or `op`.
        TypeError: pattern values of the wrong kind.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dilation_rates: Sequence[int] | None = None,
        segment_lengths: Sequence[int] | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        layer_norm: bool = True,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        op: object = None,
        *,
        num_kv_heads: int | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        attention = historical_attention(
            segment_lengths,
            dilation_rates,
            pattern=pattern,
            rule=rule,
            softmax_scale=softmax_scale,
            dropout=dropout,
            op=op,
            backend=backend,
            deterministic=deterministic,
        )
        super().__init__(
            attention,
            embed_dim,
            num_heads,
            num_kv_heads,
            bias,
            layer_norm,
            layer_norm_eps,
            gamma_init,
            device,
            dtype,
        )
        warn_if_swapped(self, segment_lengths, dilation_rates)
