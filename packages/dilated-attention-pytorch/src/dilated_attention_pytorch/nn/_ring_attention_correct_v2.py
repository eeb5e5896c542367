"""`RingAttentionCorrectV2`: dense attention over a ring, the historical name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from ..pattern import DilationPattern
from ._core import CoreModule
from ._engine import RingAttention
from ._pattern import resolve_pattern
from ._warn import warn_without_effect

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order

# One segment that holds any sequence: w may exceed n, and the sum of two still fits 64 bits.
_ONE_SEGMENT: Final = 2**62
_HISTORICAL_RING_SIZE: Final = 4


class RingAttentionCorrectV2(CoreModule):
    """Exact attention over a ring; dense unless segments or a pattern are given.

    The historical class of this name was right, for dense attention in one process, and its
    numbers are kept. Without a pattern there is one segment of dilation 1, so
    `out = softmax(scale * q k^T) v` for every ring size.

    Args:
        dropout: probability of dropping an attention weight in training (history ignored it).
        device: without effect, a FutureWarning where given.
        dtype: without effect, a FutureWarning where given.
        segment_lengths: w of each branch; dense attention where none of the pattern's arguments
            is given.
        dilation_rates: r of each branch.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form, `"longnet"` where None.
        group: process group, or one dimension of a DeviceMesh.
        simulate: simulate although torch.distributed is initialised.
        layout: `"replicated"` or `"sharded"`.
        order: `"contiguous"`, `"zigzag"` or an int64 index map.
        shard_lengths: rows per rank; as even as possible where None.
        buffer_shards: bound on the shards of keys and values held at once.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: contradicting arguments, unknown layout, sizes below 1.
        TypeError: pattern values of the wrong kind.
    """

    attention: RingAttention

    def __init__(
        self,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        group: ProcessGroup | DeviceMesh | None = None,
        simulate: bool = False,
        layout: str = "replicated",
        order: Order = "contiguous",
        shard_lengths: Sequence[int] | None = None,
        buffer_shards: int = 2,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        if all(given is None for given in (segment_lengths, dilation_rates, pattern, rule)):
            pattern = DilationPattern.longnet([_ONE_SEGMENT], [1])
        super().__init__(
            RingAttention(
                pattern=resolve_pattern(segment_lengths, dilation_rates, pattern, rule),
                softmax_scale=softmax_scale,
                dropout=dropout,
                backend=backend,
                deterministic=deterministic,
                group=group,
                ring_size=_HISTORICAL_RING_SIZE if group is None else None,
                simulate=simulate,
                layout=layout,
                order=order,
                shard_lengths=shard_lengths,
                buffer_shards=buffer_shards,
            )
        )
        warn_without_effect(self, device=device, dtype=dtype)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ring_size: int | None = None,
        is_causal: bool = False,
        return_memory_stats: bool = False,
        *,
        key_padding_mask: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        seed: int | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend over `(b, n, h, d)` tensors (SDPA's are `(b, h, n, d)`: `.transpose(1, 2)`).

        Args:
            query: `(b, n, h, d)`.
            key: `(b, n, g, d)`, where g divides h.
            value: `(b, n, g, d)`.
            ring_size: ranks; where None the group's size, or 4 without a group, as in history.
            is_causal: a token sees itself and earlier tokens only.
            return_memory_stats: not served; True raises.
            key_padding_mask: `(b, n)` bool, True = ignore the key, as in `nn.MultiheadAttention`.
            cu_seqlens: `(docs + 1,)` int32 boundaries of packed documents, b = 1.
            seed: of the dropout mask; None draws one.

        Returns:
            `(b, n, h, d)`, zero where a token sees no key.

        Raises:
            ValueError: wrong shapes or values, or `return_memory_stats=True`.
            TypeError: wrong dtypes.
        """
        if return_memory_stats:
            raise ValueError(
                "return_memory_stats=True is not served: the historical figures were a formula. "
                "Call explain(n, num_heads=..., head_dim=...) for the bytes per rank"
            )
        attention = self.attention
        if ring_size is not None:
            attention = replace(attention, ring_size=ring_size)
        return attention(
            query,
            key,
            value,
            is_causal=is_causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
            training=self.training,
            seed=seed,
        )
