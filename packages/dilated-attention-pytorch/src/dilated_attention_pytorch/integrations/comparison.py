"""How far the true operator is from torchscale's, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._attention import TorchscaleAttention
from .torchscale import replaced_layers


@dataclass(frozen=True, slots=True)
class Difference:
    """|exact - compatible| of an attention layer's output, and the mean |compatible|."""

    largest: float
    mean: float
    size: float

    @property
    def relative(self) -> float:
        """The mean difference as a share of the mean size."""
        return self.mean / self.size if self.size else 0.0


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One layer.

    Args:
        name: of the attention module.
        alone: both operators on the same input, that of the compatible model.
        accumulated: the exact model's layer against the compatible model's, so with what the layers
            before it changed.
    """

    name: str
    alone: Difference
    accumulated: Difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """All layers, in the order in which they ran."""

    layers: tuple[LayerDifference, ...]

    def __str__(self) -> str:
        lines = ["mean |exact - compatible| / mean |compatible| (largest difference)"]
        lines += [
            f"{x.name}: alone {x.alone.relative:.3%} ({x.alone.largest:.3g}), "
            f"accumulated {x.accumulated.relative:.3%} ({x.accumulated.largest:.3g})"
            for x in self.layers
        ]
        return "\n".join(lines)


@torch.no_grad()
def compare(model: nn.Module, *args: Any, **kwargs: Any) -> Comparison:
    """Run a replaced model with torchscale's operator and with the true one, and compare.

    The model runs twice, in eval mode; its modes are as before afterwards. Each layer's outputs of
    the first run are kept until it is compared.

    Args:
        model: replaced; on a ring every rank calls it and gets the figures of its own rows.
        *args: the model's inputs.
        **kwargs: likewise.

    Raises:
        ValueError: nothing is replaced.
    """
    layers = replaced_layers(model)
    modes = {module: module.training for module in model.modules()}
    were_exact = {layer: layer.exact for layer in layers.values()}
    compatible: dict[str, Tensor] = {}
    alone: dict[str, Difference] = {}
    accumulated: dict[str, Difference] = {}

    def both(name: str, layer: TorchscaleAttention, given: Any, named: Any, out: Tensor) -> None:
        compatible[name] = out
        layer.exact = True
        exact, _ = layer.forward(*given, **named)
        layer.exact = False
        alone[name] = _difference(exact, out)

    def against(name: str, layer: TorchscaleAttention, given: Any, named: Any, out: Tensor) -> None:
        accumulated[name] = _difference(out, compatible.pop(name))

    try:
        model.eval()
        for exact, look in ((False, both), (True, against)):
            for layer in layers.values():
                layer.exact = exact
            _run(model, layers, look, args, kwargs)
    finally:
        for layer, exact in were_exact.items():
            layer.exact = exact
        for module, training in modes.items():
            module.training = training
    return Comparison(
        tuple(LayerDifference(name, found, accumulated[name]) for name, found in alone.items())
    )


def _run(
    model: nn.Module,
    layers: dict[str, TorchscaleAttention],
    look: Callable[[str, TorchscaleAttention, Any, Any, Tensor], None],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    hooks = []
    for name, layer in layers.items():

        def seen(
            module: nn.Module, given: Any, named: Any, result: tuple[Tensor, None], name: str = name
        ) -> None:
            assert isinstance(module, TorchscaleAttention)
            look(name, module, given, named, result[0])

        hooks.append(layer.register_forward_hook(seen, with_kwargs=True))
    try:
        model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()


def _difference(exact: Tensor, compatible: Tensor) -> Difference:
    if not exact.numel():
        return Difference(0.0, 0.0, 0.0)
    apart = (exact.double() - compatible.double()).abs()
    size = compatible.double().abs().mean()
    return Difference(float(apart.max()), float(apart.mean()), float(size))
