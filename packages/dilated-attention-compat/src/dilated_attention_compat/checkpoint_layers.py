"""The attention layers in a historical state dict: which family of keys, and what they learned.

| family | keys, with E = embed_dim | written by |
|---|---|---|
| `FUSED` | `qkv_proj` (3E, E), `out_proj` (E, E), maybe `q_ln`, `k_ln` (E) | improved, ring |
| `NORMED` | `q_proj`, `k_proj`, `v_proj`, `out_proj` (E, E), `q_ln`, `k_ln` (E) | standard |
| `BARE` | the same four, without norms | standard, block-sparse |
| `FKODOM` | the same four and `norm` (E) | the package that history began with |

Wrappers put `_impl.` (the block-sparse factory) or `attention_core.` before these names. Rows
[0:E] of `qkv_proj` are q, [E:2E] are k, [2E:3E] are v.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]
WRAPPERS = ("_impl.", "attention_core.")
SEPARATE = ("q_proj", "k_proj", "v_proj")
NAMES = ("qkv_proj", *SEPARATE, "out_proj", "q_ln", "k_ln", "norm")


class Family(StrEnum):
    """Which keys a layer has."""

    FUSED = "fused qkv_proj"
    NORMED = "separate projections, q_ln and k_ln"
    BARE = "separate projections, no norm"
    FKODOM = "separate projections and norm"


_OVER_HEADS = (
    "weights of ImprovedMultiheadDilatedAttention or RingMultiheadDilatedAttention were trained "
    "under wrong attention: the softmax ran over the heads at a single position, and no token saw "
    "another"
)
_OVER_BLOCKS = (
    "weights of a block-sparse layer were trained under wrong attention: every block of keys had a "
    "softmax of its own, and the results were added"
)
_EITHER = (
    "these keys are those of MultiheadDilatedAttention(layer_norm=False), whose attention was "
    "right, and of BlockSparseRingMultiheadDilatedAttention, whose attention was wrong, and do not "
    "tell which"
)
_DIVIDED = (
    "weights of the package that history began with were trained under another attention: its "
    "output was divided by its own sum over all positions"
)


@dataclass(frozen=True)
class Layer:
    """One attention layer of a state dict.

    Attributes:
        prefix: What its keys begin with, wrappers included.
        family: Which keys follow.
    """

    prefix: str
    family: Family

    @property
    def wrapper(self) -> str:
        """The wrapper's part of the prefix; empty where there is none."""
        return next((w for w in WRAPPERS if f".{self.prefix}".endswith(f".{w}")), "")

    @property
    def bare_prefix(self) -> str:
        """The prefix without the wrapper."""
        return self.prefix.removesuffix(self.wrapper)

    @property
    def lesson(self) -> str:
        """What is wrong, or may be, with what the weights learned; empty where they are right."""
        if self.wrapper == "_impl.":
            return _OVER_BLOCKS
        return {Family.FUSED: _OVER_HEADS, Family.BARE: _EITHER, Family.FKODOM: _DIVIDED}.get(
            self.family, ""
        )

    @property
    def old_numbers(self) -> str:
        """The class that computes what the weights learned; empty where there is none."""
        if self.wrapper == "_impl." or self.family is Family.BARE:
            return "BlockSparseRingMultiheadDilatedAttention of dilated_attention_compat"
        if self.family is Family.FUSED:
            return (
                "ImprovedMultiheadDilatedAttention or RingMultiheadDilatedAttention of "
                "dilated_attention_compat"
            )
        return ""

    def keys(self, tensors: Tensors) -> list[str]:
        """Return its keys in a state dict."""
        wanted = (f"{self.prefix}{name}.{kind}" for name in NAMES for kind in ("weight", "bias"))
        return [key for key in wanted if key in tensors]


def find_layers(tensors: Mapping[Any, object]) -> Iterator[Layer]:
    """Yield the attention layers of a state dict, in the order of its keys.

    Whatever has these keys with these shapes is one; other libraries have layers like `BARE`.

    Args:
        tensors: A state dict; what is no tensor is passed over.
    """
    for key, value in tensors.items():
        name = "out_proj.weight"
        if not (isinstance(key, str) and key.endswith(name) and isinstance(value, torch.Tensor)):
            continue
        prefix = key.removesuffix(name)
        width = value.shape[0]

        def has(name: str, *shape: int, prefix: str = prefix) -> bool:
            found = tensors.get(f"{prefix}{name}.weight")
            return isinstance(found, torch.Tensor) and found.shape == shape

        if value.shape != (width, width) or (prefix and not prefix.endswith(".")):
            continue
        if has("qkv_proj", 3 * width, width):
            yield Layer(prefix, Family.FUSED)
        elif all(has(name, width, width) for name in SEPARATE):
            if has("q_ln", width):
                yield Layer(prefix, Family.NORMED)
            else:
                yield Layer(prefix, Family.FKODOM if has("norm", width) else Family.BARE)


def as_fused(layer: Layer, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return a layer's tensors with one `qkv_proj` and the norm, if any, as `q_ln`.

    Returns:
        Tensors by name within the layer.

    Raises:
        ValueError: The layer normalises q and k before the attention, which a fused one does not.
    """
    own = {key.removeprefix(layer.prefix): tensors[key] for key in layer.keys(tensors)}
    if layer.family is Family.FUSED:
        return own
    if layer.family is Family.NORMED:
        raise ValueError(
            f"{layer.prefix or 'the layer'}: q_ln and k_ln of MultiheadDilatedAttention normalise "
            "q and k before the attention, which a fused projection does not do; load it into a "
            "MultiheadDilatedAttention"
        )
    fused = {}
    for kind in ("weight", "bias"):
        parts = [own[f"{name}.{kind}"] for name in SEPARATE if f"{name}.{kind}" in own]
        if parts:
            fused[f"qkv_proj.{kind}"] = torch.cat(parts)
        for old, new in (("out_proj", "out_proj"), ("norm", "q_ln")):
            if f"{old}.{kind}" in own:
                fused[f"{new}.{kind}"] = own[f"{old}.{kind}"]
    return fused


def as_separate(layer: Layer, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return a layer's tensors with `q_proj`, `k_proj` and `v_proj`.

    Returns:
        Tensors by name within the layer.

    Raises:
        ValueError: The layer normalises the output of the attention alone, which one with separate
            projections does not.
    """
    own = {key.removeprefix(layer.prefix): tensors[key] for key in layer.keys(tensors)}
    if layer.family in (Family.NORMED, Family.BARE):
        return own
    if layer.family is Family.FKODOM or "q_ln.weight" in own:
        raise ValueError(
            f"{layer.prefix or 'the layer'}: its norm follows the attention and nothing else; "
            "MultiheadDilatedAttention would normalise q and k with it too. Load it into a module "
            "with a fused projection, create_multihead_dilated_attention('improved') or ('ring')"
        )
    separate: dict[str, torch.Tensor] = {}
    for kind in ("weight", "bias"):
        if f"qkv_proj.{kind}" in own:
            parts = own[f"qkv_proj.{kind}"].chunk(3)
            separate |= {f"{n}.{kind}": part for n, part in zip(SEPARATE, parts, strict=True)}
        if f"out_proj.{kind}" in own:
            separate[f"out_proj.{kind}"] = own[f"out_proj.{kind}"]
    return separate
