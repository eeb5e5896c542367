"""Which class serves which `attention_type`, for both kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from torch import nn

from .. import _legacy
from ..nn import (
    DilatedAttention,
    DistributedMultiheadDilatedAttention,
    ImprovedDilatedAttention,
    ImprovedMultiheadDilatedAttention,
    MultiheadDilatedAttention,
    RingDilatedAttentionV2,
    RingMultiheadDilatedAttentionV2,
)

RING_OPTIONS: Final = frozenset(
    ("group", "ring_size", "simulate", "layout", "order", "shard_lengths", "buffer_shards")
)
_PREFIX: Final = "multihead_"


@dataclass(frozen=True)
class Entry:
    """One `attention_type`.

    Args:
        cls: the class constructed, with keyword arguments only.
        defaults: options that make this type what it is; the caller's options win.
        renames: common option names and what `cls` calls them.
        without_ring: for types that need a ring, the type that computes the same on one device.
    """

    cls: type[nn.Module]
    defaults: Mapping[str, object] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    without_ring: str | None = None


_SHARDED: Final = MappingProxyType({"layout": "sharded"})

_CORES: Final[dict[str, Entry]] = {
    "standard": Entry(DilatedAttention, renames={"dropout": "attention_dropout"}),
    "improved": Entry(ImprovedDilatedAttention),
    "ring": Entry(RingDilatedAttentionV2, without_ring="improved"),
    "distributed": Entry(RingDilatedAttentionV2, _SHARDED, without_ring="standard"),
    "improved_distributed": Entry(RingDilatedAttentionV2, _SHARDED, without_ring="improved"),
    "ring_distributed": Entry(RingDilatedAttentionV2, _SHARDED, without_ring="improved"),
}
_MULTIHEADS: Final[dict[str, Entry]] = {
    "standard": Entry(MultiheadDilatedAttention),
    "improved": Entry(ImprovedMultiheadDilatedAttention),
    "ring": Entry(RingMultiheadDilatedAttentionV2, without_ring="improved"),
    "distributed": Entry(DistributedMultiheadDilatedAttention, _SHARDED, without_ring="standard"),
    "improved_distributed": Entry(
        RingMultiheadDilatedAttentionV2, _SHARDED, without_ring="improved"
    ),
    "ring_distributed": Entry(RingMultiheadDilatedAttentionV2, _SHARDED, without_ring="improved"),
}
_BUILT_IN: Final = frozenset(_CORES)


def register_attention(name: str, cls: type[nn.Module]) -> None:
    """Make `create_dilated_attention(name)` construct `cls`.

    The class is called with keywords only: `pattern=` where its constructor names it, else
    `segment_lengths=` and `dilation_rates=`; then the caller's options. Registering a name of
    one's own again replaces it.

    Raises:
        ValueError: the name is empty, `"auto"`, or one of the package's own.
        TypeError: `name` is no str, or `cls` no subclass of `torch.nn.Module`.
    """
    _register(_CORES, name, cls)


def register_multihead_attention(name: str, cls: type[nn.Module]) -> None:
    """Make `create_multihead_dilated_attention(name)` construct `cls`.

    As `register_attention`, with `embed_dim=` and `num_heads=` passed as well. `"multihead_x"` and
    `"x"` are the same name.

    Raises:
        ValueError: the name is empty, `"auto"`, or one of the package's own.
        TypeError: `name` is no str, or `cls` no subclass of `torch.nn.Module`.
    """
    _register(_MULTIHEADS, name.removeprefix(_PREFIX) if isinstance(name, str) else name, cls)


def core_entry(name: str) -> Entry:
    """The entry of a core type; ValueError lists what exists."""
    return _lookup("create_dilated_attention", _CORES, name)


def multihead_entry(name: str) -> Entry:
    """The entry of a multihead type; ValueError lists what exists."""
    short = name.removeprefix(_PREFIX) if isinstance(name, str) else name
    return _lookup("create_multihead_dilated_attention", _MULTIHEADS, short)


def _lookup(function: str, entries: Mapping[str, Entry], name: str) -> Entry:
    if name not in entries:
        types = ["auto", *sorted(entries)]
        advice = _legacy.attention_type_advice(function, name)
        raise ValueError(
            f"Unknown attention type {name!r}. Available types: {types}{advice and '. ' + advice}"
        )
    return entries[name]


def _register(entries: dict[str, Entry], name: str, cls: type[nn.Module]) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    if not name or name == "auto" or name in _BUILT_IN:
        raise ValueError(
            f"{name!r} cannot be registered: it is empty or belongs to the package, which has "
            f"{['auto', *sorted(_BUILT_IN)]}; choose another name"
        )
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"cls must be a subclass of torch.nn.Module, got {cls!r}")
    entries[name] = Entry(cls)
