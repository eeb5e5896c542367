"""`RingMultiheadDilatedAttentionV2`: one fused projection around the ring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..pattern import DilationPattern
from ._checkpoint import CorrectedModule
from ._engine import RingAttention
from ._fused import FusedProjection
from ._pattern import resolve_pattern

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


class RingMultiheadDilatedAttentionV2(CorrectedModule, FusedProjection):
    """Multihead dilated attention over a ring, fused projection; returns `(out, None)`.

        q, k, v = split(qkv_proj(x));  out = out_proj(q_ln(attend(q, k, v)))

    `attend` is `ring_dilated_attention` by LongNet's rule. Projections and norm work row by row,
    so with `layout="sharded"` a rank passes and gets its own rows `(b, n_rank, E)`, and the
    gradients of the parameters are those of its rows: sum them over the group. With
    `"replicated"` every rank passes and gets the full sequence and the full gradients.

    The state_dict has the keys of the historical `RingMultiheadDilatedAttention`: `qkv_proj`,
    `out_proj`, `q_ln`, and `k_ln`, which is frozen and unused.

    Args:
        embed_dim: E, a multiple of `num_heads`.
        num_heads: query heads H.
        segment_lengths: w of each branch.
        dilation_rates: r of each branch.
        dropout: probability of dropping an attention weight in training.
        bias: biases in all projections.
        layer_norm: own `q_ln` and `k_ln`.
        layer_norm_eps: their epsilon.
        gamma_init: gain of the initial weights of v and `out_proj` (MAGNETO).
        ring_size: ranks to simulate, or the size of `group`.
        group: process group, or one dimension of a DeviceMesh.
        simulate: simulate although torch.distributed is initialised.
        layout: `"replicated"` or `"sharded"`.
        order: `"contiguous"`, `"zigzag"` or an int64 index map.
        shard_lengths: rows per rank; as even as possible where None.
        buffer_shards: bound on the shards of keys and values held at once.
        device: of the parameters.
        dtype: of the parameters.
        num_kv_heads: key/value heads, a divisor of `num_heads`; `num_heads` where None.
        pattern: any `DilationPattern`, instead of the short form.
        rule: offset rule of the short form, `"longnet"` where None.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: wrong sizes, contradicting or missing pattern arguments, unknown layout.
        TypeError: pattern values of the wrong kind.
    """

    attention: RingAttention

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        segment_lengths: Sequence[int] | None = None,
        dilation_rates: Sequence[int] | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        layer_norm: bool = True,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        ring_size: int | None = None,
        group: ProcessGroup | DeviceMesh | None = None,
        simulate: bool = False,
        layout: str = "replicated",
        order: Order = "contiguous",
        shard_lengths: Sequence[int] | None = None,
        buffer_shards: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        num_kv_heads: int | None = None,
        pattern: DilationPattern | None = None,
        rule: str | None = None,
        softmax_scale: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        attention = RingAttention(
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
        super().__init__(
            attention,
            embed_dim,
            num_heads,
            num_kv_heads,
            bias,
            layer_norm,
            layer_norm_eps,
            gamma_init,
            device,
            dtype,
        )
