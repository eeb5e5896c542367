"""`ImprovedMultiheadDilatedAttention`: one fused projection around the LongNet operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pattern import DilationPattern
from ._checkpoint import CorrectedModule
from ._engine import LocalAttention
from ._fused import FusedProjection
from ._pattern import resolve_pattern
from ._warn import warn_if_swapped, warn_without_effect


class ImprovedMultiheadDilatedAttention(CorrectedModule, FusedProjection):
    """Multihead dilated attention with a fused projection; returns `(out, None)`.

        q, k, v = split(qkv_proj(x));  out = out_proj(q_ln(attend(q, k, v)))

    `attend` is `dilated_attention` by LongNet's rule. The historical class of this name took its
    softmax over the heads of one token. The state_dict keeps its keys: `qkv_proj`, `out_proj`,
    `q_ln`, and `k_ln`, which is frozen and unused.

    Args:
        embed_dim: E, a multiple of `num_heads`.
        num_heads: query heads H.
        dilation_rates: r of each branch; by position it stands before `segment_lengths`.
        segment_lengths: w of each branch.
        dropout: probability of dropping an attention weight in training.
        bias: biases in all projections.
        layer_norm: own `q_ln` and `k_ln`.
        layer_norm_eps: their epsilon.
        gamma_init: gain of the initial weights of v and `out_proj` (MAGNETO).
        device: of the parameters.
        dtype: of the parameters.
        use_tf32: without effect, a FutureWarning where given.
        num_kv_heads: key/value heads, a divisor of `num_heads`; `num_heads` where None.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form, `"longnet"` where None.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: wrong sizes, or contradicting or missing pattern arguments.
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
        use_tf32: bool | None = None,
        *,
        num_kv_heads: int | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        attention = LocalAttention(
            pattern=resolve_pattern(segment_lengths, dilation_rates, pattern, rule),
            softmax_scale=softmax_scale,
            dropout=dropout,
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
        warn_without_effect(self, use_tf32=use_tf32)
