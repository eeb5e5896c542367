"""`RingDilatedAttentionV2`: dilated attention over a ring of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..pattern import DilationPattern
from ._checkpoint import CorrectedModule
from ._core import CommonCore
from ._engine import RingAttention
from ._pattern import resolve_pattern
from ._warn import warn_without_effect

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


class RingDilatedAttentionV2(CorrectedModule, CommonCore):
    """`ring_dilated_attention` as a module, by LongNet's rule; equal to one device for every R.

    | layout | each rank passes | each rank gets |
    |---|---|---|
    | `replicated` (default) | the full q; full k, v or its own rows of them | the full out |
    | `sharded` | its own rows of q, k, v | its own rows of out |

    `group=` makes a real ring; `ring_size=` without a group simulates one in this process, full
    tensors in and out; neither means R = 1. The historical class of this name was dense attention
    whatever the segments and rates; this one is dilated.

    Args:
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dropout: probability of dropping an attention weight in training.
        ring_size: ranks to simulate, or the size of `group`.
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

    attention: RingAttention

    def __init__(
        self,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        dropout: float = 0.0,
        ring_size: int | None = None,
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
            RingAttention(
                pattern=resolve_pattern(segment_lengths, dilation_rates, pattern, rule),
                softmax_scale=softmax_scale,
                dropout=dropout,
                backend=backend,
                deterministic=deterministic,
                group=group,
                ring_size=ring_size,
                simulate=simulate,
                layout=layout,
                order=order,
                shard_lengths=shard_lengths,
                buffer_shards=buffer_shards,
            )
        )
        warn_without_effect(self, device=device, dtype=dtype)

    @property
    def ring_size(self) -> int | None:
        """Ranks of the ring as given, None for the size of the group or 1."""
        return self.attention.ring_size

    @property
    def mode(self) -> str:
        """`"distributed"`, `"simulated"` or `"single"`."""
        return self.attention.mode
