"""Loading historical weights into present modules."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ._record import GUIDE
from .checkpoint_layers import Family, Layer, as_fused, as_separate, find_layers

_OURS = ("dilated_attention_pytorch", "dilated_attention_compat")


class WrongAttentionError(ValueError):
    """Weights were, or may have been, trained under wrong attention, and nobody said they knew."""


def load_legacy_state_dict(
    module: nn.Module, state_dict: Mapping[str, torch.Tensor], acknowledged: bool = False
) -> list[str]:
    """Load a state dict that the historical package saved, whatever its keys.

    Fused and separate projections are converted into what `module` has, the prefixes of wrappers
    (`_impl.`, `attention_core.`) are left out, `norm` becomes `q_ln`, and a missing `k_ln` that the
    module never uses stays as it is. Loading into the classes of this package, which have the old
    numbers, needs no acknowledgement. Nothing is loaded where an error is raised.

    Args:
        module: A module, or a model that has such modules.
        state_dict: Its weights as history saved them; keys of other layers are passed on.
        acknowledged: Whether it is known that the module's outputs will not be those the weights
            were trained for.

    Returns:
        What is worth knowing, a line each.

    Raises:
        TypeError: `state_dict` is no mapping.
        WrongAttentionError: Weights were trained under wrong attention, or may have been, and
            `acknowledged` is False.
        ValueError: No historical layer is found, one was saved by a present class, or what it
            computes cannot be had from the module's layer.
        RuntimeError: Keys or shapes do not fit, as `load_state_dict` says it.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            "expected a state dict, got "
            f"{type(state_dict).__name__}; read a file with torch.load(path, weights_only=True)"
        )
    wanted = module.state_dict()
    layers = {layer: _place(layer, wanted) for layer in find_layers(state_dict)}
    layers = {layer: at for layer, at in layers.items() if _is_ours(module, at)}
    if not layers:
        raise ValueError(
            "state_dict has no attention layer that fits the module; expected keys such as "
            "PREFIX.qkv_proj.weight or PREFIX.q_proj.weight, got "
            f"{', '.join(list(state_dict)[:4]) or 'none'}. {_cure(state_dict, wanted)}"
        )
    metadata: dict[str, Any] = dict(getattr(state_dict, "_metadata", {}))
    for layer in layers:
        if metadata.get(layer.prefix[:-1], {}).get("version", 1) > 1:
            raise ValueError(
                f"{layer.prefix or 'the state dict'} was saved by a present class; use "
                "module.load_state_dict"
            )
    doubtful = [
        layer for layer, at in layers.items() if layer.lesson and not _keeps_numbers(module, at)
    ]
    if doubtful and not acknowledged:
        raise WrongAttentionError(
            f"{told(doubtful)} To load them all the same, pass acknowledged=True."
        )
    theirs = {key for layer in layers for key in layer.keys(state_dict)}
    new = {key: value for key, value in state_dict.items() if key not in theirs}
    notes = [told(doubtful)] if doubtful else []
    for layer, at in layers.items():
        fused = f"{at}qkv_proj.weight" in wanted
        tensors = as_fused(layer, state_dict) if fused else as_separate(layer, state_dict)
        notes += _complete(tensors, layer, at, wanted)
        new |= {at + name: tensor for name, tensor in tensors.items()}
        # The version of the present class: what loading would warn of has been said.
        own = getattr(wanted, "_metadata", {}).get(at[:-1], {})
        metadata[at[:-1]] = metadata.get(at[:-1], {}) | own
    ordered = OrderedDict(new)
    ordered._metadata = metadata  # type: ignore[attr-defined]
    _load_whole(module, ordered)
    return notes


def told(layers: Sequence[Layer]) -> str:
    """Return what is to be said of layers whose weights learned something wrong."""
    lessons = dict.fromkeys((layer.lesson, layer.old_numbers) for layer in layers)
    sentences = []
    for lesson, old_numbers in lessons:
        names = [layer.prefix[:-1] or "the whole" for layer in layers if layer.lesson == lesson]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        keep = f" To keep the old numbers, load them into {old_numbers}." if old_numbers else ""
        sentences.append(f"{names[0]}{more}: {lesson}.{keep}")
    return (
        f"{' '.join(sentences)} The correct operator will not reproduce their outputs: take them "
        f"as a start and fine-tune, or train anew. See {GUIDE}#checkpoints."
    )


def _cure(state_dict: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Return what to do with a state dict whose keys fit nothing."""
    prefixes = {key.partition(".")[0] for key in state_dict}
    if len(prefixes) == 1 and any(key.partition(".")[2] in wanted for key in state_dict):
        take_off = "torch.nn.modules.utils.consume_prefix_in_state_dict_if_present"
        return f"Take the prefix off first: {take_off}(state_dict, '{prefixes.pop()}.')"
    return "Pass the model's state dict itself"


def _load_whole(module: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load a state dict, or nothing of it: PyTorch copies what fits before it raises."""
    before = copy.deepcopy(module.state_dict())
    try:
        module.load_state_dict(state_dict)
    except RuntimeError:
        module.load_state_dict(before)
        raise


def _place(layer: Layer, wanted: Mapping[str, torch.Tensor]) -> str:
    """Return the prefix of the layer's keys in the module."""
    stays = f"{layer.prefix}out_proj.weight" in wanted
    return layer.prefix if stays else layer.bare_prefix


def _is_ours(module: nn.Module, prefix: str) -> bool:
    return any(base.__module__.partition(".")[0] in _OURS for base in _kinds(module, prefix))


def _keeps_numbers(module: nn.Module, prefix: str) -> bool:
    return any(base.__module__.startswith(f"{_OURS[1]}.") for base in _kinds(module, prefix))


def _kinds(module: nn.Module, prefix: str) -> tuple[type, ...]:
    try:
        return type(module.get_submodule(prefix[:-1])).__mro__
    except AttributeError:
        return ()


def _complete(
    tensors: dict[str, torch.Tensor], layer: Layer, at: str, wanted: Mapping[str, torch.Tensor]
) -> list[str]:
    """Add the `k_ln` that a fused layer has and never uses; return what is to be said of it."""
    name = layer.prefix[:-1] or "the layer"
    if layer.family not in (Family.FUSED, Family.FKODOM):
        return []
    notes = [f"{name}: norm is q_ln now"] if layer.family is Family.FKODOM else []
    missing = [
        f"k_ln.{kind}"
        for kind in ("weight", "bias")
        if f"{at}k_ln.{kind}" in wanted and f"k_ln.{kind}" not in tensors
    ]
    tensors |= {key: wanted[f"{at}{key}"] for key in missing}
    if missing:
        notes.append(f"{name}: k_ln is not in the state dict and stays as it was; it is never used")
    elif "k_ln.weight" in tensors:
        notes.append(f"{name}: k_ln is carried along; it was never used and is not used")
    return notes
