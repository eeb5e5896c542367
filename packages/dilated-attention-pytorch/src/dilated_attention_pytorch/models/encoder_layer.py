"""One layer of LongNet's encoder."""

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


class DilatedTransformerEncoderLayer(nn.Module):
    """Dilated self-attention and feed-forward with MAGNETO's sub-LN, `(b, n, d_model)` in and out.

        x <- x + drop(self_attn(norm1(x)))
        x <- x + drop(linear2(norm3(drop(activation(linear1(norm2(x)))))))

    Argument names, order and state_dict keys are those of the historical class; the layers are
    initialised as MAGNETO says (arXiv 2210.06423, Fig. 2): Xavier-normal, gain `gamma_init` but
    for the projections of query and key, which have 1.

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
        rule: `longnet`, `torchscale`, or `historical`: heads in groups, one for each branch, and
            the output divided by their number, which weights of the historical class need.

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

        self.activation = activation_function(activation)
        self.dropout = nn.Dropout(dropout)
        self.norm1 = norm(d_model)
        self.self_attn = LayerAttention(
            pattern,
            output_scale,
            d_model,
            nhead,
            dropout=dropout,
            layer_norm=True,
            layer_norm_eps=layer_norm_eps,
            gamma=gamma_init,
            device=device,
            dtype=dtype,
        )
        self.norm2 = norm(d_model)
        self.linear1 = nn.Linear(d_model, dim_feedforward, device=device, dtype=dtype)
        self.norm3 = norm(dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model, device=device, dtype=dtype)
        for linear in (self.linear1, self.linear2):
            initialise_linear(linear, gamma_init)

    def forward(
        self,
        src: Tensor,
        is_causal: bool = False,
        *,
        position: Rotation | XPos | None = None,
        attend: AttentionFunction = dilated_attention,
    ) -> Tensor:
        """The layer's output.

        Args:
            src: (b, n, d_model); on a ring the rank's rows.
            is_causal: A row sees itself and earlier rows only.
            position: Factors on queries and keys, none where None.
            attend: Called as `attend(query, key, value, pattern, is_causal=..., dropout_p=...)`;
                for a ring `partial(ring_dilated_attention, group=...)`.
        """
        x = self.norm1(src)
        x = self.self_attn(x, x, is_causal=is_causal, position=position, attend=attend)
        x = src + self.dropout(x)
        inner = self.dropout(self.activation(self.linear1(self.norm2(x))))
        out: Tensor = x + self.dropout(self.linear2(self.norm3(inner)))
        return out
