"""How a module calls the attention functions: on this device alone, or over a ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..functional import dilated_attention, explain, ring_dilated_attention
from ..functional.group import resolve_group
from ..pattern import DilationPattern

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from ..functional.group import Order


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalAttention:
    """`dilated_attention` with a module's fixed options.

    `out = output_scale * dilated_attention(query, key, value, pattern)`.

    Args:
        pattern: branches and offsets.
        output_scale: factor on the output, 1 but for the historical short form.
        softmax_scale: factor on the scores, `1 / sqrt(head_dim)` where None.
        dropout: probability of dropping an attention weight in training.
        backend: `"auto"` or the name of one backend.
        deterministic: bitwise repeatable results.

    Raises:
        ValueError: dropout outside [0, 1].
    """

    pattern: DilationPattern
    output_scale: float = 1.0
    softmax_scale: float | None = None
    dropout: float = 0.0
    backend: str = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"dropout must be between 0.0 and 1.0, got {self.dropout}")

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalAttention:
        """The same object: it never changes, and a process group cannot be copied."""
        return self

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        is_causal: bool,
        key_padding_mask: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        training: bool,
        seed: int | torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend; `(b, n, h, d)` in and out, `key_padding_mask` True where a key is ignored."""
        options = {
            "is_causal": is_causal,
            "scale": self.softmax_scale,
            "key_mask": _inverted(key_padding_mask),
            "cu_seqlens": cu_seqlens,
            "dropout_p": self.dropout if training else 0.0,
            "seed": seed,
            "backend": self.backend,
            "deterministic": self.deterministic,
        }
        out = self._attend(query, key, value, options)
        return out if self.output_scale == 1.0 else out * self.output_scale

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor:
        out = dilated_attention(query, key, value, self.pattern, **options)
        assert isinstance(out, torch.Tensor)
        return out

    def explain(self, n: int, **call: Any) -> str:
        """The function called, then what `explain` says of a call of length n."""
        plan = explain(
            self.pattern,
            n,
            backend=self.backend,
            deterministic=self.deterministic,
            **self._ring(),
            **call,
        )
        scaled = "" if self.output_scale == 1.0 else f", output times {self.output_scale:.6g}"
        return f"function   {self._function()}{scaled}\n{plan}"

    def _function(self) -> str:
        return "dilated_attention, one device"

    def _ring(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class RingAttention(LocalAttention):
    """`ring_dilated_attention` with a module's fixed options.

    Args:
        group: process group, or one dimension of a DeviceMesh; None for a ring in this process.
        ring_size: number of ranks to simulate, or the group's size.
        simulate: simulate the ring although torch.distributed is initialised.
        layout: `"sharded"` or `"replicated"`.
        order: `"contiguous"`, `"zigzag"` or an int64 index map.
        shard_lengths: rows per rank.
        buffer_shards: bound on the shards of keys and values held at once.

    Raises:
        ValueError: unknown layout, ring_size < 1 or buffer_shards < 2.
    """

    group: ProcessGroup | DeviceMesh | None = None
    ring_size: int | None = None
    simulate: bool = False
    layout: str = "sharded"
    order: Order = "contiguous"
    shard_lengths: Sequence[int] | None = None
    buffer_shards: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in ("sharded", "replicated"):
            raise ValueError(f"layout must be 'sharded' or 'replicated', got {self.layout!r}")
        for name, size, least in (
            ("ring_size", self.ring_size, 1),
            ("buffer_shards", self.buffer_shards, 2),
        ):
            if size is not None and size < least:
                raise ValueError(f"{name} must be at least {least}, got {size}")

    @property
    def mode(self) -> str:
        """`distributed` over a group, `simulated` in this process, or `single` (R = 1)."""
        if self.group is not None:
            return "distributed"
        return "simulated" if self.simulate or (self.ring_size or 1) > 1 else "single"

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor:
        out = ring_dilated_attention(
            query,
            key,
            value,
            self.pattern,
            group=self.group,
            ring_size=self.ring_size,
            simulate=self.simulate,
            layout=self.layout,
            order=self.order,
            shard_lengths=self.shard_lengths,
            buffer_shards=self.buffer_shards,
            **options,
        )
        assert isinstance(out, torch.Tensor)
        return out

    def _function(self) -> str:
        return f"ring_dilated_attention, {self.mode}, layout {self.layout!r}"

    def _ring(self) -> dict[str, Any]:
        size = 1 if self.ring_size is None else self.ring_size
        if self.group is not None:
            size = resolve_group(self.group).size()
        return {
            "ring_size": size,
            "layout": self.layout,
            "order": self.order,
            "shard_lengths": self.shard_lengths,
            "buffer_shards": self.buffer_shards,
        }


def _inverted(key_padding_mask: torch.Tensor | None) -> torch.Tensor | None:
    if key_padding_mask is None:
        return None
    if not isinstance(key_padding_mask, torch.Tensor) or key_padding_mask.dtype != torch.bool:
        got = getattr(key_padding_mask, "dtype", type(key_padding_mask).__name__)
        raise TypeError(
            "key_padding_mask must be a bool tensor, True where a key is ignored "
            f"(as in nn.MultiheadAttention); got {got}"
        )
    return ~key_padding_mask
