"""The parts that encoder and decoder layers share besides attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

Activation: TypeAlias = "str | Callable[[Tensor], Tensor]"


def activation_function(activation: Activation) -> Callable[[Tensor], Tensor]:
    """`relu` or `gelu` by name; a function as it is.

    Raises:
        ValueError: An unknown name.
        TypeError: Neither a name nor a function.
    """
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"activation must be a name or a function, got {activation!r}")
    known: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
    if activation not in known:
        raise ValueError(f"activation must be one of {sorted(known)}, got {activation!r}")
    return known[activation]


def initialise_linear(linear: nn.Linear, gain: float) -> None:
    """Xavier-normal weights with this gain, biases 0."""
    nn.init.xavier_normal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
