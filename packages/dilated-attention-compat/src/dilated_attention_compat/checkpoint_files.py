"""Historical checkpoints on disk: read without running what is in them, converted, written."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .checkpoint_layers import Family, Layer, as_fused, find_layers

SAFETENSORS = ".safetensors"
_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass
class Conversion:
    """What became of a checkpoint.

    Attributes:
        content: What to write.
        layers: The layers found, under their old prefixes.
        renamed: How many keys have another name now.
        notes: What is worth knowing, a line each.
    """

    content: Any = None
    layers: list[Layer] = field(default_factory=list)
    renamed: int = 0
    notes: list[str] = field(default_factory=list)


def read_checkpoint(path: Path) -> Any:
    """Read a checkpoint; nothing in the file is executed.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote.

    Raises:
        ValueError: The file holds more than tensors and plain containers, or is no checkpoint.
        ImportError: safetensors is not installed.
    """
    if path.suffix == SAFETENSORS:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        named = found[1] if found else "nothing readable"
        raise ValueError(
            f"{path} is refused: it holds more than tensors and plain containers, and loading it "
            f"could run what it names ({named}). Where you trust it, write it anew with "
            "torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:
        # Bytes that are no pickle fail at whatever instruction they happen to spell.
        raise ValueError(
            f"{path} is no checkpoint: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a `.safetensors` file says of itself; nothing for other files."""
    if path.suffix != SAFETENSORS:
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def convert(checkpoint: Any) -> Conversion:
    """Rename the keys of historical layers, in every state dict of a checkpoint.

    Prefixes of wrappers are left out; separate projections with `norm` become `qkv_proj` and
    `q_ln`; a `k_ln` that a fused layer lacks is added as the identity.

    Args:
        checkpoint: A state dict, or a dict that has some.

    Returns:
        The conversion; its content is new, tensors that do not change are shared.
    """
    conversion = Conversion()
    conversion.content = _converted(checkpoint, conversion)
    fused_anew = any(layer.family is Family.FKODOM for layer in conversion.layers)
    if fused_anew and isinstance(checkpoint, Mapping) and "optimizer" in checkpoint:
        conversion.notes.append("the optimizer's state is for other parameters now: start it anew")
    return conversion


def write_checkpoint(path: Path, content: Any, metadata: Mapping[str, str]) -> None:
    """Write a checkpoint in the format that the name of the file says.

    Args:
        path: A new file.
        content: What to write.
        metadata: What a `.safetensors` file says of itself, besides its format.

    Raises:
        ValueError: A `.safetensors` file cannot hold the content, or the file cannot be written.
        ImportError: safetensors is not installed.
    """
    if path.suffix != SAFETENSORS:
        try:
            torch.save(content, path)
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be written: {error}") from error
        return
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError(
            f"{path}: a safetensors file holds one state dict and nothing else; write a .pt file, "
            "or convert the state dict alone"
        )
    # Tied weights share memory, which the format does not allow.
    tensors = {key: value.clone().contiguous() for key, value in content.items()}
    try:
        save_file(tensors, path, {"format": "pt", **metadata})
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be written: {error}") from error


def _converted(node: Any, conversion: Conversion) -> Any:
    # A Counter is a dict as well, and not made from pairs.
    if type(node) not in (dict, OrderedDict):
        return node
    layers = list(find_layers(node))
    if not layers:
        plain = type(node)((key, _converted(value, conversion)) for key, value in node.items())
        return _with_versions(plain, node)
    conversion.layers += layers
    new: OrderedDict[str, Any] = OrderedDict()
    owners = {key: layer for layer in layers for key in layer.keys(node)}
    done: set[Layer] = set()
    for key, value in node.items():
        layer = owners.get(key)
        if layer is None:
            new[key] = value
        elif layer not in done:
            done.add(layer)
            new |= _layer(layer, node, conversion)
    return _with_versions(new, node)


def _with_versions(new: Any, old: Any) -> Any:
    """Return a state dict with the versions of the modules that another one has."""
    if hasattr(old, "_metadata"):
        new._metadata = old._metadata
    return new


def _layer(
    layer: Layer, tensors: Mapping[str, torch.Tensor], conversion: Conversion
) -> dict[str, torch.Tensor]:
    """Return one layer's tensors under their new keys."""
    before = set(layer.keys(tensors))
    own = {key.removeprefix(layer.prefix): tensors[key] for key in tensors if key in before}
    name = layer.prefix[:-1] or "the whole"
    if layer.family is Family.FKODOM:
        own = as_fused(layer, tensors)
        conversion.notes.append(f"{name}: fused into qkv_proj; norm is q_ln now")
    if layer.family in (Family.FUSED, Family.FKODOM) and "q_ln.weight" in own:
        if "k_ln.weight" in own:
            conversion.notes.append(f"{name}: k_ln is carried along; it was never used")
        else:
            own["k_ln.weight"] = torch.ones_like(own["q_ln.weight"])
            own["k_ln.bias"] = torch.zeros_like(own["q_ln.weight"])
            conversion.notes.append(f"{name}: k_ln added as the identity; it is never used")
    if layer.wrapper:
        conversion.notes.append(f"{name}: the prefix {layer.wrapper} is left out")
    new = {layer.bare_prefix + leaf: tensor for leaf, tensor in own.items()}
    conversion.renamed += len(new.keys() - before)
    return new
