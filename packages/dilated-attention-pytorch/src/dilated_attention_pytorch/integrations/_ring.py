"""A torchscale model over a ring: what its layers hold, and what lies around them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import shard, unshard
from ._attention import TorchscaleAttention
from ._placement import Placement

_MASKS = ("encoder_padding_mask", "self_attn_padding_mask")
_STATES = ("encoder_states", "inner_states")
_UNCOMPILED = "a ring's plans and messages are Python"


def attach(model: nn.Module, placement: Placement) -> None:
    """Let the stacks of layers of `model` run over the placement's ring.

    With layout `replicated` rows are divided before the first layer of a stack and put together
    after its last; with `sharded` the caller divides them, and position embeddings are told where
    they lie.

    Raises:
        ValueError: layers whose result depends on which rows a rank holds.
    """
    found = list(stacks(model))
    inside = {x for _, layers in found for layer in layers for x in layer.modules()}
    outside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, TorchscaleAttention) and module not in inside
    ]
    if outside and placement.layout == "replicated":
        raise ValueError(
            f"{outside} lie in no list `layers` whose rows could be divided; use layout='sharded' "
            "and pass each rank its rows"
        )
    for stack, layers in found:
        for layer in layers:
            _check(layer)
            _share_drop_path(layer, placement)
        if placement.layout == "sharded":
            _place_embeddings(stack, placement)
        else:
            _divide(stack, layers, placement)


def stacks(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Modules with a list `layers` of which each attends by a `TorchscaleAttention`."""
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            found = list(layers)
            if all(any(isinstance(x, TorchscaleAttention) for x in y.modules()) for y in found):
                yield module, found


def _check(layer: nn.Module) -> None:
    for module in layer.modules():
        if getattr(module, "is_moe_layer", False):
            raise ValueError(
                "a mixture of experts divides its capacity among the rows that a rank holds, so "
                "its result would depend on the ring; replace the attention without group="
            )
        if getattr(getattr(module, "args", None), "multiway", False):
            raise ValueError(
                "a multiway model splits its rows at a position of the whole sequence, which a "
                "rank does not hold; replace the attention without group="
            )


def _divide(stack: nn.Module, layers: list[nn.Module], placement: Placement) -> None:
    # Partials and not closures: a deep copy of the model copies the placement that they hold.
    for layer in layers:
        layer.register_forward_pre_hook(partial(_shard_masks, placement), with_kwargs=True)
    layers[0].register_forward_pre_hook(partial(_shard_rows, placement), with_kwargs=True)
    layers[-1].register_forward_hook(partial(_unshard_rows, placement))
    stack.register_forward_hook(partial(_unshard_states, placement))


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _shard_masks(
    placement: Placement, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    own = {
        name: shard(kwargs[name], group=placement.group)
        for name in _MASKS
        if kwargs.get(name) is not None
    }
    return args, kwargs | own


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _shard_rows(
    placement: Placement, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (shard(args[0], group=placement.group), *args[1:]), kwargs


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _unshard_rows(
    placement: Placement, layer: nn.Module, args: Any, result: tuple[Any, ...]
) -> tuple[Any, ...]:
    return (unshard(result[0], group=placement.group), *result[1:])


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _unshard_states(placement: Placement, module: nn.Module, args: Any, result: Any) -> None:
    named = result if isinstance(result, dict) else result[1]
    for name in _STATES:
        # The first state came before the layers, the last was put together after them.
        for i in range(1, len(named.get(name) or ()) - 1):
            named[name][i] = unshard(named[name][i], group=placement.group)


def _place_embeddings(stack: nn.Module, placement: Placement) -> None:
    embedding = getattr(stack, "embed_positions", None)
    if embedding is None:
        return
    if not any(kind.__name__ == "PositionalEmbedding" for kind in type(embedding).__mro__):
        raise ValueError(
            f"layout='sharded' cannot tell a {type(embedding).__name__} where a rank's rows lie; "
            "use layout='replicated'"
        )
    embedding.register_forward_pre_hook(partial(_number_rows, placement), with_kwargs=True)


@torch.compiler.disable(reason=_UNCOMPILED)  # type: ignore[untyped-decorator]
def _number_rows(
    placement: Placement, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kwargs.get("positions") is None:
        x: Tensor = args[0]
        rows = placement.rows(x[:, :, None] if x.dim() == 2 else x, None)
        # torchscale counts from 2, as Fairseq does.
        first = rows.first + 2
        found = torch.arange(first, first + x.shape[1], device=x.device)
        kwargs = kwargs | {"positions": found[None]}
    return args, kwargs


class SharedDropPath(nn.Module):
    """Stochastic depth that drops the same sequences on every rank.

    `x / (1 - p)` with probability 1 - p, else 0, for each sequence of the batch; p is
    `drop_prob`, and nothing happens outside training.

    Args:
        drop_prob: p.
        placement: the ring, if any.
    """

    def __init__(self, drop_prob: float, placement: Placement) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.placement = placement

    def forward(self, x: Tensor) -> Tensor:
        """(b, rows, e) of (b, rows, e)."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        seed = int(torch.randint(2**62, ()))
        if self.placement.comm is not None:
            seed = self.placement.comm.gather_numbers([seed])[0][0]
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand(x.shape[0], 1, 1, generator=generator) >= self.drop_prob
        return x * (kept / (1 - self.drop_prob)).to(x)


def _share_drop_path(layer: nn.Module, placement: Placement) -> None:
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "DropPath":
                drop_prob = child.drop_prob
                assert isinstance(drop_prob, float)
                setattr(parent, name, SharedDropPath(drop_prob, placement))
