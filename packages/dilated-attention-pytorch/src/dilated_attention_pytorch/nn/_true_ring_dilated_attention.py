"""`TrueRingDilatedAttention`: the historical name, over the same ring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..pattern import DilationPattern
from ._ring_dilated_attention_v2 import RingDilatedAttentionV2
from ._warn import warn_without_effect

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


class TrueRingDilatedAttention(RingDilatedAttentionV2):
    """`RingDilatedAttentionV2` under the constructor of the historical class of this name.

    That class took its softmax over heads; this one computes the same as every other ring here.

    Args:
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dropout: probability of dropping an attention weight in training.
        ring_size: ranks to simulate, or the size of `group`; None for the group's size or 1.
        chunk_size_kv: without effect, a FutureWarning where given; `buffer_shards` bounds memory.
        device: without effect, a FutureWarning where given.
        dtype: without effect, a FutureWarning where given.
        group: process group, or one dimension of a DeviceMesh.
        simulate: simulate although torch.distributed is initialised.
        layout: `"replicated"` or `"sharded"`.
        order: `"contiguous"`, `"zigzag"` or an int64 index map.
        shard_lengths: rows per rank; as even as possible where None.
        buffer_shards: bound on the shards of keys and values held at once.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form, `"longnet"` where None.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: contradicting or missing arguments, unknown layout, sizes below 1.
        TypeError: pattern values of the wrong kind.
    """

    def __init__(
        self,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        dropout: float = 0.0,
        ring_size: int | None = None,
        chunk_size_kv: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: ProcessGroup | DeviceMesh | None = None,
        simulate: bool = False,
        layout: str = "replicated",
        order: Order = "contiguous",
        shard_lengths: Sequence[int] | None = None,
        buffer_shards: int = 2,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__(
            segment_lengths,
            dilation_rates,
            dropout,
            ring_size,
            group=group,
            simulate=simulate,
            layout=layout,
            order=order,
            shard_lengths=shard_lengths,
            buffer_shards=buffer_shards,
            pattern=pattern,
            rule=rule,
            softmax_scale=softmax_scale,
            backend=backend,
            deterministic=deterministic,
        )
        warn_without_effect(self, chunk_size_kv=chunk_size_kv, device=device, dtype=dtype)
