"""Every attention type of both kinds: it runs, it is the same function, it differs in how."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from dilated_attention_oracle import Pattern, check
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.comm.base import record_messages
from dilated_attention_pytorch.core import factory as historical_home
from dilated_attention_pytorch.factory import (
    create_dilated_attention,
    create_multihead_dilated_attention,
)
from dilated_attention_pytorch.pattern import DilationPattern

Array = npt.NDArray[Any]
NAMES = [
    "auto",
    "standard",
    "improved",
    "ring",
    "distributed",
    "improved_distributed",
    "ring_distributed",
]
RINGS = ["ring", "distributed", "improved_distributed", "ring_distributed"]
SHORT: dict[str, Any] = {"segment_lengths": [8, 24], "dilation_rates": [1, 3]}
ORACLE = Pattern(((8, 1), (24, 3)))
N, HEADS, DIM = 24, 4, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def ring_options(name: str, ring_size: int) -> dict[str, int]:
    return {"ring_size": ring_size} if name in RINGS else {}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ring_size", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_core_equals_the_oracle(name: str, ring_size: int, causal: bool) -> None:
    module = create_dilated_attention(name, **SHORT, **ring_options(name, ring_size))
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, N, HEADS, DIM).unbind())
    dout = torch.randn(2, N, HEADS, DIM)
    out = module(q, k, v, is_causal=causal)
    out.backward(dout)
    arrays = [x.detach().numpy() for x in (q, k, v)]
    options = {"dout": dout.numpy(), "is_causal": causal}
    want = reference(*arrays, ORACLE, "float32", **options)
    budget = naive(*arrays, ORACLE, "float32", **options)
    for field, ours in (("out", out), ("dq", q.grad), ("dk", k.grad), ("dv", v.grad)):
        assert ours is not None
        got = ours.detach().numpy()
        check(field, got, getattr(want, field), getattr(budget, field), "float32")


def projections(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of q, k, v in this order, and their biases, whichever way they are stored."""
    if hasattr(module, "qkv_proj"):
        return module.qkv_proj.weight, module.qkv_proj.bias
    linears = (module.q_proj, module.k_proj, module.v_proj)
    return torch.cat([m.weight for m in linears]), torch.cat([m.bias for m in linears])


def copy_projections(source: nn.Module, target: nn.Module) -> None:
    weight, bias = projections(source)
    with torch.no_grad():
        if hasattr(target, "qkv_proj"):
            target.qkv_proj.weight.copy_(weight)
            target.qkv_proj.bias.copy_(bias)
        else:
            linears = (target.q_proj, target.k_proj, target.v_proj)
            for linear, w, b in zip(linears, weight.chunk(3), bias.chunk(3), strict=True):
                linear.weight.copy_(w)
                linear.bias.copy_(b)
    target.out_proj.load_state_dict(source.out_proj.state_dict())


def pipeline(x: Array, module: nn.Module, dtype: str) -> Array:
    """Projections, attention, projection, in the dtype."""
    weight, bias = (value.detach().numpy().astype(dtype) for value in projections(module))
    x = x.astype(dtype)
    fused = (x @ weight.T + bias).reshape(*x.shape[:2], 3, HEADS, -1)
    heads = [fused[:, :, i] for i in range(3)]
    attend = reference if dtype == "float64" else naive
    out = attend(*heads, ORACLE, dtype, dout=np.zeros_like(heads[0])).out.astype(dtype)
    last = module.out_proj
    w, b = (value.detach().numpy().astype(dtype) for value in (last.weight, last.bias))
    return out.reshape(x.shape) @ w.T + b


@pytest.mark.parametrize("ring_size", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_multiheads_agree_when_projections_are_copied(name: str, ring_size: int) -> None:
    embed = HEADS * DIM
    common = {**SHORT, "embed_dim": embed, "num_heads": HEADS, "layer_norm": False}
    source = create_multihead_dilated_attention("standard", **common)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    module = create_multihead_dilated_attention(name, **common, **ring_options(name, ring_size))
    copy_projections(source, module)
    x = torch.randn(2, N, embed)
    out = module(x)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    want, budget = (pipeline(x.numpy(), source, dtype) for dtype in ("float64", "float32"))
    check(name, out.detach().numpy(), want, budget, "float32")


@pytest.mark.parametrize("name", NAMES)
def test_defaults(name: str) -> None:
    for module in (create_dilated_attention(name), create_multihead_dilated_attention(name)):
        assert module.pattern == DilationPattern.longnet([2048, 4096, 8192], [1, 2, 4])
        assert module.attention.output_scale == 1.0
    assert (module.embed_dim, module.num_heads) == (768, 12)


@pytest.mark.parametrize("name", NAMES)
def test_pattern_and_rule(name: str) -> None:
    pattern = DilationPattern.head_groups([8], [2])
    for create in (create_dilated_attention, create_multihead_dilated_attention):
        assert create(name, pattern=pattern).pattern == pattern
        assert create(name, **SHORT, rule="torchscale").pattern.rule == "torchscale"
        with pytest.raises(ValueError, match="pattern= already holds branches"):
            create(name, **SHORT, pattern=pattern)
        with pytest.raises(ValueError, match="pattern= already holds branches"):
            create(name, pattern=pattern, rule="torchscale")


@pytest.mark.parametrize("name", NAMES)
def test_the_common_options_reach_the_module(name: str) -> None:
    options = {"dropout": 0.25, "softmax_scale": 0.5, "backend": "eager", "deterministic": True}
    for create in (create_dilated_attention, create_multihead_dilated_attention):
        engine = create(name, **options).attention
        assert (engine.dropout, engine.softmax_scale) == (0.25, 0.5)
        assert (engine.backend, engine.deterministic) == ("eager", True)


PROJECTIONS = {
    "auto": "fused",
    "standard": "separate",
    "improved": "fused",
    "ring": "fused",
    "distributed": "separate",
    "improved_distributed": "fused",
    "ring_distributed": "fused",
}


@pytest.mark.parametrize("name", NAMES)
def test_projections_and_returns(name: str) -> None:
    module = create_multihead_dilated_attention(name, 16, 4, **SHORT)
    fused = PROJECTIONS[name] == "fused"
    assert hasattr(module, "qkv_proj") is fused
    assert hasattr(module, "q_proj") is not fused
    products = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_: products.append(layer.out_features))
        for layer in module.children()
        if isinstance(layer, nn.Linear)
    ]
    out = module(torch.randn(1, N, 16))
    for hook in hooks:
        hook.remove()
    assert products == ([48, 16] if fused else [16, 16, 16, 16])
    assert isinstance(out, tuple) is fused
    assert f", {PROJECTIONS[name]} projection" in module.explain(N)


def messages(name: str, **options: Any) -> list[tuple[str, int]]:
    """Label and size of what the ranks sent, for one segment over the whole sequence."""
    module = create_dilated_attention(name, segment_lengths=[N], dilation_rates=[1], **options)
    with record_messages() as sent:
        module(*torch.randn(3, 1, N, HEADS, DIM).unbind())
    return [(message.label, message.nbytes) for message in sent]


def test_who_communicates_and_what() -> None:
    for name in ("auto", "standard", "improved"):
        assert messages(name) == []
    for name in RINGS:
        assert messages(name) == []
        sent = messages(name, ring_size=3)
        labels = {label for label, _ in sent}
        # Keys and values meet the queries; with `replicated` outputs are put together, too.
        assert labels == ({"partial", "result"} if name == "ring" else {"key_value"})
    assert messages("auto", ring_size=3) == messages("ring", ring_size=3)
    # Every row of k and v, HEADS * DIM float32 each, travels once to each of the two others.
    row = 2 * HEADS * DIM * torch.float32.itemsize
    assert sum(size for _, size in messages("distributed", ring_size=3)) == 2 * N * row


def test_ring_distributed_is_improved_distributed() -> None:
    for create in (create_dilated_attention, create_multihead_dilated_attention):
        texts = [repr(create(f"{name}_distributed", **SHORT)) for name in ("ring", "improved")]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("name", NAMES)
def test_explain_says_how(name: str) -> None:
    options = ring_options(name, 3)
    core = create_dilated_attention(name, **SHORT, **options)
    multihead = create_multihead_dilated_attention(name, 16, 4, **SHORT, **options)
    for text in (core.explain(N, num_heads=4, head_dim=4), multihead.explain(N)):
        if name in RINGS:
            layout = "replicated" if name == "ring" else "sharded"
            assert f"ring_dilated_attention, simulated, layout '{layout}'" in text
            assert f"R = 3, {layout}" in text
        else:
            assert "function   dilated_attention, one device" in text
            assert "R = 1: nothing travels" in text
        assert "(8, 1), (24, 3)" in text
        assert "FLOPs" in text


def test_explain_names_the_historical_scale() -> None:
    text = modules.DilatedAttention([8, 24], [1, 3]).explain(N, num_heads=4, head_dim=4)
    assert "output times 0.5" in text


@pytest.mark.parametrize("option", ["ring_size", "group", "simulate", "layout", "order"])
def test_auto_takes_the_ring_where_one_of_its_options_is_given(option: str) -> None:
    values = {"ring_size": 2, "simulate": True, "layout": "sharded", "order": "zigzag"}
    options = {option: values.get(option)}
    assert type(create_dilated_attention(**options)) is modules.RingDilatedAttentionV2
    multihead = create_multihead_dilated_attention(**options)
    assert type(multihead) is modules.RingMultiheadDilatedAttentionV2


def test_ring_types_name_their_classes() -> None:
    assert type(create_dilated_attention("ring")) is modules.RingDilatedAttentionV2
    ring = create_multihead_dilated_attention("multihead_ring")
    assert type(ring) is modules.RingMultiheadDilatedAttentionV2
    assert ring.attention.layout == "replicated"
    sharded = create_dilated_attention("ring", layout="sharded")
    assert sharded.attention.layout == "sharded"


def test_the_historical_home_has_the_same_functions() -> None:
    assert historical_home.create_dilated_attention is create_dilated_attention
    parameters = list(inspect.signature(create_multihead_dilated_attention).parameters)
    assert parameters[:5] == [
        "attention_type",
        "embed_dim",
        "num_heads",
        "segment_lengths",
        "dilation_rates",
    ]
