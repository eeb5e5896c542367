"""microsoft/torchscale's dilated attention, and that of models that carry a copy of its code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

from ..functional import AttentionWeights, shard
from ..pattern import DilationPattern
from . import _ring
from ._attention import TorchscaleAttention
from ._placement import Placement

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

Model = TypeVar("Model", bound=nn.Module)
_PROJECTIONS = ("k_proj", "v_proj", "q_proj", "out_proj")


def replace_dilated_attention(
    model: Model,
    *,
    exact: bool = False,
    group: ProcessGroup | DeviceMesh | None = None,
    layout: str = "replicated",
) -> Model:
    """Give a built torchscale, Prov-GigaPath or LongViT model this package's attention, in place.

    Parameters, `state_dict` keys and the model's call stay. It then needs no flash-attn, runs in
    float32, float64, bfloat16 and float16 on CPU and CUDA, and takes padded batches (`padding`).

    With `exact=False` outputs and gradients are torchscale's up to rounding, for weights that were
    trained with it: its phantom keys, detached mix and shifted rows (`DilationPattern.torchscale`).
    Two of its defects are not kept: it drops attention weights in eval mode as well, and ignores
    key padding masks. With `exact=True` the operator is that of the LongNet paper.

    On a ring (`group`) every rank calls the model alike. With layout `replicated` all pass the same
    whole input and get the same whole output, while each holds 1/R of the rows in the layers;
    gradients of parameters are to be *averaged* over the group, as `DistributedDataParallel` does.
    With `sharded`, torchscale's `seq_parallel`, each passes and gets its own contiguous rows, as
    even as possible; gradients are those of the sum of the ranks' losses and are to be *added*.

    Args:
        model: holds at least one torchscale `DilatedAttention`, known by its name and attributes:
            copies of torchscale in other packages are served.
        exact: the true operator instead of torchscale's.
        group: a ring over the sequence.
        layout: what ranks pass and get.

    Returns:
        The model itself.

    Raises:
        ValueError: nothing to replace; replaced already; a module that is compiled, or has hooks or
            a forward of its own, which the change would lose; a model that a ring cannot run; a
            model built with `seq_parallel=True` without group and `layout="sharded"`.
        TypeError: no module, or no group.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if layers_of(model):
        raise ValueError(
            "this model's attention is replaced already; change `exact` of the modules that "
            "integrations.layers_of(model) names, or build the model anew for another group"
        )
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_torchscale(child)
    ]
    if not places:
        hint = "; pass the model that holds it" if _is_torchscale(model) else ""
        raise ValueError(
            "found no torchscale DilatedAttention to replace (a module of that name with q_proj, "
            f"k_proj, v_proj, out_proj and args.segment_length) inside {type(model).__name__}{hint}"
        )
    for _, name, child in places:
        _check_plain(name, child)
    _check_parallel([child.args for _, _, child in places], group, layout)
    placement = Placement(group, layout)
    # A module that is used in several places stays one module.
    made: dict[int, TorchscaleAttention] = {}
    for _, _, child in places:
        if id(child) not in made:
            made[id(child)] = _replacement(child, exact, placement)
    for parent, name, child in places:
        setattr(parent, name, made[id(child)])
    if group is not None:
        _ring.attach(model, placement)
    return model


def layers_of(model: nn.Module) -> dict[str, TorchscaleAttention]:
    """The replaced attention modules by name, in the order of the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, TorchscaleAttention)
    }


def replaced_layers(model: nn.Module) -> dict[str, TorchscaleAttention]:
    """As `layers_of`.

    Raises:
        ValueError: there are none.
    """
    layers = layers_of(model)
    if not layers:
        raise ValueError("call replace_dilated_attention(model) first: nothing here is replaced")
    return layers


@contextmanager
def padding(model: nn.Module, key_padding_mask: Tensor) -> Iterator[None]:
    """Tell a replaced model which rows of the batch are padding, where its call cannot.

    Prov-GigaPath's slide encoder, for one, takes no mask. Inside the context every layer uses this
    one in place of what it is passed.

    Args:
        model: replaced.
        key_padding_mask: (b, n) bool, True = ignore, with an entry for a class token; on a ring all
            of it (`replicated`) or this rank's rows (`sharded`).

    Raises:
        ValueError: nothing is replaced, or a model that averages over all rows, padding included.
    """
    layers = replaced_layers(model)
    if any(getattr(module, "global_pool", False) is True for module in model.modules()):
        raise ValueError(
            "this model averages over all rows (global_pool=True), padding included; build it "
            "with global_pool=False, or average encoder_out yourself"
        )
    before = {layer.placement: layer.placement.padding for layer in layers.values()}
    for placement in before:
        whole = placement.comm is None or placement.layout == "sharded"
        placement.padding = (
            key_padding_mask if whole else shard(key_padding_mask, group=placement.group)
        )
    try:
        yield
    finally:
        for placement, mask in before.items():
            placement.padding = mask


def attention_maps(
    model: nn.Module, rows: Tensor | Sequence[int], *args: Any, **kwargs: Any
) -> dict[str, AttentionWeights]:
    """Run a replaced model and weigh what the chosen rows look at, in every layer.

    Args:
        model: replaced, on one device.
        rows: (m,) positions in the sequence that the layers see; a class token comes first.
        *args: the model's inputs.
        **kwargs: likewise.

    Returns:
        `attention_weights` of each layer, by the layer's name.

    Raises:
        ValueError: nothing is replaced, a ring, or a call with a key/value cache.
    """
    found: dict[str, AttentionWeights] = {}
    hooks = []
    for name, layer in replaced_layers(model).items():

        def weigh(
            module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], name: str = name
        ) -> None:
            assert isinstance(module, TorchscaleAttention)
            names = ("query", "key", "value", "incremental_state")
            inputs = dict(zip(names, given, strict=False)) | named
            if inputs.get("incremental_state") is not None:
                raise ValueError(
                    "attention maps need all rows in one call: call the model with the whole "
                    "sequence, without incremental_state"
                )
            found[name] = module.weights(
                inputs["query"],
                inputs["key"],
                rows,
                key_padding_mask=inputs.get("key_padding_mask"),
                is_causal=inputs.get("is_causal", False),
            )

        hooks.append(layer.register_forward_pre_hook(weigh, with_kwargs=True))
    try:
        model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_torchscale(module: nn.Module) -> bool:
    named = any(kind.__name__ == "DilatedAttention" for kind in type(module).__mro__)
    return (
        named
        and hasattr(getattr(module, "args", None), "segment_length")
        and hasattr(getattr(module, "args", None), "dilated_ratio")
        and all(isinstance(getattr(module, name, None), nn.Module) for name in _PROJECTIONS)
    )


def _check_plain(name: str, module: nn.Module) -> None:
    """Refuse what is tied to the module and not to its parameters: it would be lost in silence."""
    own = vars(module)
    hooks = [key for key, value in own.items() if key.endswith("_hooks") and value]
    compiled = name == "_orig_mod" or own.get("_compiled_call_impl") is not None
    if hooks or compiled or "forward" in own:
        found = "is compiled" if compiled else f"has {', '.join(hooks) or 'a forward of its own'}"
        raise ValueError(
            f"the attention {name!r} {found}, which would be lost with the module that is "
            "replaced; replace the attention first, and compile or hook the model after it"
        )


def _check_parallel(settings: list[Any], group: object, layout: str) -> None:
    if not any(getattr(args, "seq_parallel", False) for args in settings):
        return
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if (several or group is not None) and (group is None or layout != "sharded"):
        raise ValueError(
            "this model was built with seq_parallel=True, so each rank passes its own rows: give "
            "group= and layout='sharded', or build it with seq_parallel=False"
        )


def _replacement(module: nn.Module, exact: bool, placement: Placement) -> TorchscaleAttention:
    args: Any = module.args
    pattern = DilationPattern.torchscale(
        args.segment_length,
        args.dilated_ratio,
        phantom_keys=True,
        detach_mix=True,
        shift_rows=True,
    )
    num_heads: Any = module.num_heads
    pattern.offsets(num_heads)
    made = TorchscaleAttention(
        dict(module.named_children()),
        num_heads=num_heads,
        pattern=pattern,
        dropout=float(getattr(module, "dropout", 0.0)),
        exact=exact,
        placement=placement,
    )
    return made.train(module.training)
