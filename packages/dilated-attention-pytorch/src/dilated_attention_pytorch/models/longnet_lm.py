"""A language model on LongNet's encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import ring_dilated_attention
from .cache import KeyValueCache
from .feed_forward import Activation
from .layer_attention import AttentionFunction
from .longnet import DILATION_RATES, SEGMENT_LENGTHS, LongNet
from .rows import global_rows
from .xpos import PositionEmbedding

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


class LongNetLM(nn.Module):
    """Embedding, `LongNet`, norm, and logits of the next token.

    Argument names, order and state_dict keys are those of the historical class. It added xPos to
    the embeddings; here xPos, or plain rotary positions, turn queries and keys, from global
    indices. Embeddings are normal with variance 1/d_model, the output projection Xavier-normal.

    Args:
        num_tokens: Size of the vocabulary.
        d_model: Width, `nhead` times an even number.
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
        position: `xpos` or `rotary`.
        rotary_base: Base of the frequencies.
        xpos_scale_base: Rows over which xPos decays by its zeta; in float32 and bfloat16 it serves
            sequences of up to about 34 times that many.

    Raises:
        ValueError: Sizes that do not fit, or an unknown rule, activation or position.
        TypeError: Values of the wrong kind.

    Example:
        >>> model = LongNetLM(256, 24, 3, 1, 1, 48, [16, 64], [1, 4])
        >>> model(torch.zeros(1, 100, dtype=torch.int64)).shape
        torch.Size([1, 100, 256])
    """

    def __init__(
        self,
        num_tokens: int,
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
        position: str = "xpos",
        rotary_base: float = 10_000.0,
        xpos_scale_base: float = 512.0,
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(num_tokens, d_model, device=device, dtype=dtype)
        self.pos_embedding = PositionEmbedding(
            position, d_model, nhead, rotary_base, xpos_scale_base
        ).to(device)
        self.long_net = LongNet(
            d_model,
            nhead,
            num_encoder_layers,
            num_decoder_layers,
            dim_feedforward,
            segment_lengths,
            dilation_rates,
            dropout,
            activation,
            layer_norm_eps,
            device,
            dtype,
            rule=rule,
        )
        self.norm = nn.LayerNorm(d_model, layer_norm_eps, device=device, dtype=dtype)
        self.out = nn.Linear(d_model, num_tokens, device=device, dtype=dtype)
        nn.init.normal_(self.token_embedding.weight, std=d_model**-0.5)
        nn.init.xavier_normal_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def empty_cache(self) -> KeyValueCache:
        """A cache for generation that holds no rows yet."""
        return KeyValueCache(self.long_net.num_attentions)

    def forward(
        self,
        x: Tensor,
        is_causal: bool = True,
        positions: Tensor | None = None,
        *,
        group: ProcessGroup | DeviceMesh | None = None,
        ring_size: int | None = None,
        simulate: bool = False,
        order: Order = "contiguous",
        shard_lengths: Sequence[int] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits of the token after each one.

        Args:
            x: (b, n) int64; with `group`, this rank's rows; with `cache`, the rows after its own.
            is_causal: Of every attention.
            positions: As in `DilatedDecoderLM`, as are all that follow.
            group: The ring that holds the sequence.
            ring_size: Ranks to simulate where no group is given.
            simulate: Simulate although torch.distributed is initialised.
            order: How rows lie on the ranks.
            shard_lengths: Rows per rank.
            cache: Of the rows so far.

        Returns:
            (b, n, num_tokens).

        Raises:
            ValueError: A wrong shape, `group` without `positions`, or a cache with a ring.
            TypeError: Tokens or positions that are not int64.
        """
        rows = global_rows(x, positions, cache, ring=group is not None)
        ring: dict[str, Any] = {
            "group": group,
            "ring_size": ring_size,
            "order": order,
            "shard_lengths": shard_lengths,
        }
        attend: AttentionFunction | Sequence[AttentionFunction]
        if cache is not None:
            attend = cache.functions(self.long_net.num_attentions, **ring)
        else:
            attend = partial(ring_dilated_attention, simulate=simulate, **ring)
        embedded = self.token_embedding(x)
        position = self.pos_embedding(rows, embedded.dtype)
        out = self.long_net(embedded, is_causal, position=position, attend=attend)
        logits: Tensor = self.out(self.norm(out))
        return logits
