"""One layer of LongNet's decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import dilated_attention
from .feed_forward import Activation, activation_function, initialise_linear
from .layer_attention import AttentionFunction, LayerAttention, layer_pattern
from .rotary import Rotation
from .xpos import XPos


class DilatedTransformerDecoderLayer(nn.Module):
    """Dilated self-attention, dilated attention over a memory, feed-forward; with sub-LN.

        x <- x + drop(self_attn(norm1(x)))
        x <- x + drop(multihead_attn(norm2(x), memory))
        x <- x + drop(linear2(norm4(drop(activation(linear1(norm3(x)))))))

    Argument names, order and state_dict keys are those of the historical class: `self_attn` has
    no norm of its own, `multihead_attn` has `q_ln` and `k_ln`. Initialised as
    `DilatedTransformerEncoderLayer`.

    Args:
        d_model: Width, a multiple of `nhead`.
        nhead: Heads.
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dim_feedforward: Inner width of the feed-forward part.
        dropout: Probability of dropping an attention weight or an entry, in training.
        activation: `relu`, `gelu` or a function.
        layer_norm_eps: Of all norms.
        gamma_init: MAGNETO's gain.
        device: Of the parameters.
        dtype: Of the parameters.
        rule: As in `DilatedTransformerEncoderLayer`.

    Raises:
        ValueError: Sizes that do not fit, an unknown rule or activation.
        TypeError: Values of the wrong kind.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: str = "longnet",
    ) -> None:
        super().__init__()
        pattern, output_scale = layer_pattern(segment_lengths, dilation_rates, rule)

        def norm(width: int) -> nn.LayerNorm:
            return nn.LayerNorm(width, layer_norm_eps, device=device, dtype=dtype)

        def attention(*, layer_norm: bool) -> LayerAttention:
            return LayerAttention(
                pattern,
                output_scale,
                d_model,
                nhead,
                dropout=dropout,
                layer_norm=layer_norm,
                layer_norm_eps=layer_norm_eps,
                gamma=gamma_init,
                device=device,
                dtype=dtype,
            )

        self.activation = activation_function(activation)
        self.dropout = nn.Dropout(dropout)
        self.norm1 = norm(d_model)
        self.self_attn = attention(layer_norm=False)
        self.norm2 = norm(d_model)
        self.multihead_attn = attention(layer_norm=True)
        self.norm3 = norm(d_model)
        self.linear1 = nn.Linear(d_model, dim_feedforward, device=device, dtype=dtype)
        self.norm4 = norm(dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model, device=device, dtype=dtype)
        for linear in (self.linear1, self.linear2):
            initialise_linear(linear, gamma_init)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        position: Rotation | XPos | None = None,
        attend: AttentionFunction = dilated_attention,
        attend_memory: AttentionFunction | None = None,
    ) -> Tensor:
        """The layer's output.

        Args:
            tgt: (b, n, d_model); on a ring the rank's rows.
            memory: (b, n, d_model), the same rows: the pattern is defined on one sequence.
            tgt_is_causal: A row sees itself and earlier rows of `tgt` only.
            memory_is_causal: The same of `memory`.
            position: Factors on queries and keys, none where None.
            attend: As in `DilatedTransformerEncoderLayer`.
            attend_memory: The same for `memory`; `attend` where None.

        Raises:
            ValueError: `tgt` and `memory` of different lengths.
        """
        x = self.norm1(tgt)
        x = self.self_attn(x, x, is_causal=tgt_is_causal, position=position, attend=attend)
        x = tgt + self.dropout(x)
        over_memory = self.multihead_attn(
            self.norm2(x),
            memory,
            is_causal=memory_is_causal,
            position=position,
            attend=attend if attend_memory is None else attend_memory,
        )
        x = x + self.dropout(over_memory)
        inner = self.dropout(self.activation(self.linear1(self.norm3(x))))
        out: Tensor = x + self.dropout(self.linear2(self.norm4(inner)))
        return out
