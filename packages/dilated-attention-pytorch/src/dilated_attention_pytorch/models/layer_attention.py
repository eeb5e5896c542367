"""The attention of an encoder or decoder layer, under history's parameter names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..functional import dilated_attention
from ..pattern import DilationPattern
from .feed_forward import initialise_linear
from .rotary import Rotation
from .xpos import XPos

AttentionFunction: TypeAlias = Callable[..., Any]
"""`dilated_attention`, or `ring_dilated_attention` with its group bound by `functools.partial`."""


def layer_pattern(
    segment_lengths: Sequence[int], dilation_rates: Sequence[int], rule: str
) -> tuple[DilationPattern, float]:
    """The pattern of a layer, and the factor on its attention's output.

    Args:
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        rule: `longnet`, `torchscale`, or `historical`: head groups divided by their number.

    Raises:
        ValueError: An unknown rule, or lengths and rates that do not fit.
    """
    if rule == "longnet":
        return DilationPattern.longnet(segment_lengths, dilation_rates), 1.0
    if rule == "torchscale":
        return DilationPattern.torchscale(segment_lengths, dilation_rates), 1.0
    if rule == "historical":
        pattern = DilationPattern.head_groups(segment_lengths, dilation_rates)
        return pattern, 1.0 / len(pattern.branches)
    raise ValueError(f"rule must be 'longnet', 'torchscale' or 'historical', got {rule!r}")


class LayerAttention(nn.Module):
    """Dilated attention of one sequence over another of the same length.

        q, k, v = position(q_ln(q_proj(x))), position(k_ln(k_proj(memory))), v_proj(memory)
        out = out_proj(q_ln(output_scale * attend(q, k, v)))

    `q_ln` has two roles, as in `MultiheadDilatedAttention`, whose state_dict this is; with
    `layer_norm=False` there is neither `q_ln` nor `k_ln`. Projections of query and key start
    Xavier-normal with gain 1, those of value and output with `gamma` (MAGNETO, arXiv 2210.06423,
    Fig. 2), biases at 0.

    Args:
        pattern: Branches and offset rule.
        output_scale: Factor on the attention's output.
        embed_dim: E, a multiple of `num_heads`.
        num_heads: Heads H.
        dropout: Probability of dropping an attention weight in training.
        layer_norm: Own `q_ln` and `k_ln`.
        layer_norm_eps: Their epsilon.
        gamma: Gain of the projections of value and output.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        ValueError: `embed_dim` that `num_heads` does not divide, or a pattern that cannot serve it.
    """

    def __init__(
        self,
        pattern: DilationPattern,
        output_scale: float,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float,
        layer_norm: bool,
        layer_norm_eps: float,
        gamma: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"d_model ({embed_dim}) must be divisible by nhead ({num_heads})")
        pattern.offsets(num_heads)
        self.pattern, self.output_scale, self.num_heads = pattern, output_scale, num_heads
        self.dropout, self.gamma = dropout, gamma
        self.q_proj = nn.Linear(embed_dim, embed_dim, device=device, dtype=dtype)
        self.k_proj = nn.Linear(embed_dim, embed_dim, device=device, dtype=dtype)
        self.v_proj = nn.Linear(embed_dim, embed_dim, device=device, dtype=dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, device=device, dtype=dtype)
        self.q_ln: nn.LayerNorm | None = None
        self.k_ln: nn.LayerNorm | None = None
        if layer_norm:
            self.q_ln = nn.LayerNorm(embed_dim, layer_norm_eps, device=device, dtype=dtype)
            self.k_ln = nn.LayerNorm(embed_dim, layer_norm_eps, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections anew; norms become the identity."""
        for projection, gain in (
            (self.q_proj, 1.0),
            (self.k_proj, 1.0),
            (self.v_proj, self.gamma),
            (self.out_proj, self.gamma),
        ):
            initialise_linear(projection, gain)
        for norm in (self.q_ln, self.k_ln):
            if norm is not None:
                norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        *,
        is_causal: bool,
        position: Rotation | XPos | None,
        attend: AttentionFunction = dilated_attention,
    ) -> Tensor:
        """Attention of `x` (b, n, E) over `memory` (b, n, E), as `attend` computes it.

        Raises:
            ValueError: Lengths that differ.
        """
        query, key, value = self.q_proj(x), self.k_proj(memory), self.v_proj(memory)
        if self.q_ln is not None and self.k_ln is not None:
            query, key = self.q_ln(query), self.k_ln(key)
        query, key, value = (t.unflatten(-1, (self.num_heads, -1)) for t in (query, key, value))
        if position is not None:
            query, key = position.query(query), position.key(key)
        dropout_p = self.dropout if self.training else 0.0
        out = attend(query, key, value, self.pattern, is_causal=is_causal, dropout_p=dropout_p)
        out = out.flatten(-2) * self.output_scale
        if self.q_ln is not None:
            out = self.q_ln(out)
        projected: Tensor = self.out_proj(out)
        return projected
