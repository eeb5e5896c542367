"""LongNet's encoder and decoder, one over the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import dilated_attention
from .decoder_layer import DilatedTransformerDecoderLayer
from .encoder_layer import DilatedTransformerEncoderLayer
from .feed_forward import Activation
from .layer_attention import AttentionFunction
from .rotary import Rotation
from .xpos import XPos

SEGMENT_LENGTHS = (2048, 4096, 8192, 16384, 32768)
DILATION_RATES = (1, 2, 4, 6, 12)


class Layers(nn.Module):
    """Layers under the name `layers`, as `nn.TransformerEncoder` keeps them."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class LongNet(nn.Module):
    """An encoder, and a decoder that attends over its output row by row; `(b, n, d_model)`.

    Argument names, order and state_dict keys are those of the historical class. The layers are
    drawn one by one, with MAGNETO's gains for N encoder and M decoder layers (arXiv 2210.06423,
    Fig. 2): encoder `sqrt(ln(3 M) ln(2 N) / 3)`, decoder `sqrt(ln 3 M)`.

    Args:
        d_model: Width, a multiple of `nhead`.
        nhead: Heads.
        num_encoder_layers: N.
        num_decoder_layers: M.
        dim_feedforward: Inner width of the feed-forward parts.
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dropout: Probability of dropping an attention weight or an entry, in training.
        activation: `relu`, `gelu` or a function.
        layer_norm_eps: Of all norms.
        device: Of the parameters.
        dtype: Of the parameters.
        rule: As in `DilatedTransformerEncoderLayer`.

    Raises:
        ValueError: Sizes that do not fit, an unknown rule or activation.
        TypeError: Values of the wrong kind.

    Example:
        >>> model = LongNet(24, 3, 1, 1, 48, [16, 64], [1, 4])
        >>> model(torch.randn(2, 100, 24)).shape
        torch.Size([2, 100, 24])
    """

    def __init__(
        self,
        d_model: int = 768,
        nhead: int = 12,
        num_encoder_layers: int = 12,
        num_decoder_layers: int = 12,
        dim_feedforward: int = 3072,
        segment_lengths: Sequence[int] = SEGMENT_LENGTHS,
        dilation_rates: Sequence[int] = DILATION_RATES,
        dropout: float = 0.0,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: str = "longnet",
    ) -> None:
        super().__init__()
        for name, count in (
            ("num_encoder_layers", num_encoder_layers),
            ("num_decoder_layers", num_decoder_layers),
        ):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        decoder_gain = math.sqrt(math.log(3 * num_decoder_layers))
        encoder_gain = decoder_gain * math.sqrt(math.log(2 * num_encoder_layers) / 3)
        sizes = (d_model, nhead, segment_lengths, dilation_rates, dim_feedforward)
        options = (dropout, activation, layer_norm_eps)
        self.encoder = Layers(
            DilatedTransformerEncoderLayer(*sizes, *options, encoder_gain, device, dtype, rule=rule)
            for _ in range(num_encoder_layers)
        )
        self.decoder = Layers(
            DilatedTransformerDecoderLayer(*sizes, *options, decoder_gain, device, dtype, rule=rule)
            for _ in range(num_decoder_layers)
        )

    @property
    def num_attentions(self) -> int:
        """Attentions that a forward runs: one for an encoder layer, two for a decoder layer."""
        return len(self.encoder.layers) + 2 * len(self.decoder.layers)

    def forward(
        self,
        x: Tensor,
        is_causal: bool = True,
        *,
        position: Rotation | XPos | None = None,
        attend: AttentionFunction | Sequence[AttentionFunction] = dilated_attention,
    ) -> Tensor:
        """The decoder's output; `x` is the input of both halves.

        Args:
            x: (b, n, d_model); on a ring the rank's rows.
            is_causal: Of every attention.
            position: Factors on queries and keys, none where None.
            attend: As in `DilatedTransformerEncoderLayer`; or one for each of the
                `num_attentions`, a decoder layer's own before that over the encoder's output.

        Raises:
            ValueError: Another number of attention functions.
        """
        count = self.num_attentions
        functions = [attend] * count if callable(attend) else list(attend)
        if len(functions) != count:
            raise ValueError(f"attend must be one function or {count}, got {len(functions)}")
        take = iter(functions)
        memory = x
        for layer in self.encoder.layers:
            memory = layer(memory, is_causal, position=position, attend=next(take))
        for layer in self.decoder.layers:
            own, over_memory = next(take), next(take)
            x = layer(
                x,
                memory,
                is_causal,
                is_causal,
                position=position,
                attend=own,
                attend_memory=over_memory,
            )
        return x
