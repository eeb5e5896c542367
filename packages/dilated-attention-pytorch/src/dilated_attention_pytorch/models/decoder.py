"""A LongNet decoder language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..functional import ring_dilated_attention
from .attention import Attend
from .block import DecoderBlock
from .cache import KeyValueCache
from .config import DecoderConfig
from .initialisation import initialise
from .layer_attention import AttentionFunction
from .rotary import Rotation
from .rows import global_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


class DilatedDecoderLM(nn.Module):
    """A decoder that predicts the next token, with dilated attention in every block.

    LongNet's model (Ding et al. 2023, arXiv 2307.02486): embedding, N pre-norm blocks with
    MAGNETO's sub-LN, a last norm, logits by the transposed embedding; rotary positions from
    global indices. Everything but attention works on single rows, so a rank of a ring computes
    its rows of the logits from its rows of the tokens.

    Args:
        config: Sizes and pattern.

    Example:
        >>> import torch
        >>> from dilated_attention_pytorch import DilationPattern
        >>> config = DecoderConfig(DilationPattern.longnet([16, 64], [1, 4]))
        >>> DilatedDecoderLM(config)(torch.zeros(1, 100, dtype=torch.int64)).shape
        torch.Size([1, 100, 256])
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        blocks = [DecoderBlock(config) for _ in range(config.num_layers)]
        initialise(self.embedding, blocks)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.embed_dim)

    def empty_cache(self) -> KeyValueCache:
        """A cache for generation that holds no rows yet."""
        return KeyValueCache(len(self.blocks))

    def forward(
        self,
        tokens: Tensor,
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
            tokens: (b, n) int64; with `group`, this rank's rows; with `cache`, the rows after
                those that it holds.
            positions: (n,) int64, global positions of these rows: 0..n-1 where None. With
                `group` they must be given, as `positions(n, group=group, ...)` gives them.
            group: The ring that holds the sequence. This and what follows goes to
                `ring_dilated_attention`.
            ring_size: Ranks to simulate where no group is given.
            simulate: Simulate although torch.distributed is initialised.
            order: How rows lie on the ranks.
            shard_lengths: Rows per rank.
            cache: Keys and values of the rows so far, from `empty_cache`, to which these rows are
                added; for generation, on one device.

        Returns:
            (b, n, vocab_size).

        Raises:
            ValueError: A wrong shape, `group` without `positions`, or a cache with a ring.
            TypeError: Tokens or positions that are not int64.
        """
        rows = global_rows(tokens, positions, cache, ring=group is not None)
        ring: dict[str, Any] = {
            "group": group,
            "ring_size": ring_size,
            "order": order,
            "shard_lengths": shard_lengths,
        }
        attends: list[AttentionFunction]
        if cache is not None:
            attends = [*cache.functions(len(self.blocks), **ring)]
        else:
            on_ring: AttentionFunction = partial(ring_dilated_attention, simulate=simulate, **ring)
            attends = [on_ring] * len(self.blocks)
        x = self.embedding(tokens) * math.sqrt(self.config.embed_dim)
        rotation = Rotation.at(rows, self.config.head_dim, self.config.rotary_base, x.dtype)
        for block, function in zip(self.blocks, attends, strict=True):
            own: Attend = partial(function, pattern=self.config.pattern, is_causal=True)
            x = block(x, rotation, own)
        return nn.functional.linear(self.norm(x), self.embedding.weight)
