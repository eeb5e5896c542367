"""A LongNet decoder language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..functional import ring_dilated_attention
from .block import DecoderBlock
from .config import DecoderConfig
from .initialisation import initialise
from .rotary import Rotation

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
    ) -> Tensor:
        """Logits of the token after each one.

        Args:
            tokens: (b, n) int64; with `group`, this rank's rows.
            positions: (n,) int64, global positions of these rows: 0..n-1 where None. With
                `group` they must be given, as `positions(n, group=group, ...)` gives them.
            group: The ring that holds the sequence. This and what follows goes to
                `ring_dilated_attention`.
            ring_size: Ranks to simulate where no group is given.
            simulate: Simulate although torch.distributed is initialised.
            order: How rows lie on the ranks.
            shard_lengths: Rows per rank.

        Returns:
            (b, n, vocab_size).

        Raises:
            ValueError: A wrong shape, or `group` without `positions`.
            TypeError: Tokens or positions that are not int64.
        """
        rows = self._rows(tokens, positions, ring=group is not None)
        attend = partial(
            ring_dilated_attention,
            pattern=self.config.pattern,
            is_causal=True,
            group=group,
            ring_size=ring_size,
            simulate=simulate,
            order=order,
            shard_lengths=shard_lengths,
        )
        x = self.embedding(tokens) * math.sqrt(self.config.embed_dim)
        rotation = Rotation.at(rows, self.config.head_dim, self.config.rotary_base, x.dtype)
        for block in self.blocks:
            x = block(x, rotation, attend)
        return nn.functional.linear(self.norm(x), self.embedding.weight)

    @staticmethod
    def _rows(tokens: Tensor, positions: Tensor | None, *, ring: bool) -> Tensor:
        """The global positions of the rows of `tokens`."""
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens must be int64, got {tokens.dtype}; use tokens.long()")
        if tokens.dim() != 2:
            raise ValueError(f"tokens must have shape (batch, n), got {tuple(tokens.shape)}")
        n = tokens.shape[1]
        if positions is None:
            if ring:
                raise ValueError(
                    "positions must be given with group: a rank's rows do not say where in the "
                    "sequence they are; pass positions(n, group=group) with the global length n"
                )
            return torch.arange(n, device=tokens.device)
        if positions.dtype != torch.int64:
            raise TypeError(f"positions must be int64, got {positions.dtype}")
        if positions.shape != (n,):
            raise ValueError(
                f"positions must have one entry for each of the {n} rows, got shape "
                f"{tuple(positions.shape)}"
            )
        return positions
