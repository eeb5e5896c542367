"""Projections: fused and separate, sub-LN, grouped heads, initialisation, against the oracle."""

from __future__ import annotations

from collections.abc import Callable
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

Array = npt.NDArray[Any]
SHORT = {"segment_lengths": [8, 20], "dilation_rates": [1, 3]}
PATTERN = Pattern(((8, 1), (20, 3)))
FUSED = [modules.ImprovedMultiheadDilatedAttention, modules.RingMultiheadDilatedAttentionV2]
SEPARATE = [modules.DistributedMultiheadDilatedAttention, modules.MultiheadDilatedAttention]
EMBED, HEADS, N = 24, 4, 20


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fused_pipeline(
    inputs: list[Array], state: dict[str, Array], kv_heads: int, layer_norm: bool, dtype: str
) -> Array:
    """`out_proj(q_ln(attend(split(qkv_proj(x)))))` in the dtype, rows [0:E] of qkv_proj first."""
    state = {name: value.astype(dtype) for name, value in state.items()}
    head_dim = EMBED // HEADS
    heads, start = [], 0
    for x, count in zip(inputs, (HEADS, kv_heads, kv_heads), strict=True):
        rows = slice(start, start + count * head_dim)
        projected = (
            x.astype(dtype) @ state["qkv_proj.weight"][rows].T + state["qkv_proj.bias"][rows]
        )
        heads.append(projected.reshape(*x.shape[:2], count, head_dim))
        start = rows.stop
    attend = reference if dtype == "float64" else naive
    out = attend(*heads, PATTERN, dtype, dout=np.zeros_like(heads[0])).out.astype(dtype)
    out = out.reshape(inputs[0].shape)
    if layer_norm:
        centred = out - out.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.asarray(1e-5, dtype))
        out = unit * state["q_ln.weight"] + state["q_ln.bias"]
    return out @ state["out_proj.weight"].T + state["out_proj.bias"]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("build", FUSED)
def test_fused_projection_equals_the_definition(
    build: Callable[..., nn.Module], self_attention: bool, layer_norm: bool, kv_heads: int
) -> None:
    module = build(EMBED, HEADS, **SHORT, layer_norm=layer_norm, num_kv_heads=kv_heads)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 2, N, EMBED)
    inputs = [x[0]] * 3 if self_attention else list(x)
    out, weights = module(inputs[0]) if self_attention else module(*inputs)
    assert weights is None
    arrays = [value.numpy() for value in inputs]
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    want = fused_pipeline(arrays, state, kv_heads, layer_norm, "float64")
    budget = fused_pipeline(arrays, state, kv_heads, layer_norm, "float32")
    check("out", out.detach().numpy(), want, budget, "float32")


@pytest.mark.parametrize("build", FUSED)
def test_value_defaults_to_key_and_key_to_query(build: Callable[..., nn.Module]) -> None:
    module = build(EMBED, HEADS, **SHORT)
    x, y = torch.randn(2, 1, N, EMBED).unbind()
    assert torch.equal(module(x, y)[0], module(x, y, y)[0])
    assert not torch.equal(module(x, y)[0], module(x, y, x)[0])
    # The one matrix product is for query, key and value that are one tensor, all three.
    assert torch.equal(module(x, x, y)[0], module(x, x.clone(), y)[0])


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_keys_are_the_historical_ones(bias: bool, layer_norm: bool) -> None:
    kinds = ["weight", "bias"] if bias else ["weight"]
    norms = ["q_ln", "k_ln"] if layer_norm else []
    layouts = [
        (FUSED, ["qkv_proj", "out_proj"]),
        (SEPARATE, ["q_proj", "k_proj", "v_proj", "out_proj"]),
    ]
    for builds, linears in layouts:
        expected = [f"{name}.{kind}" for name in linears for kind in kinds]
        expected += [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")]
        for build in builds:
            module = build(EMBED, HEADS, **SHORT, bias=bias, layer_norm=layer_norm)
            assert list(module.state_dict()) == expected


@pytest.mark.parametrize("build", [*FUSED, *SEPARATE])
def test_every_trainable_parameter_gets_a_gradient(build: Callable[..., nn.Module]) -> None:
    module = build(EMBED, HEADS, **SHORT)
    out = module(torch.randn(2, N, EMBED))
    (out[0] if isinstance(out, tuple) else out).square().sum().backward()
    for name, parameter in module.named_parameters():
        frozen = build in FUSED and name.startswith("k_ln")
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen


@pytest.mark.parametrize("build", [*FUSED, *SEPARATE])
def test_initial_gains(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    embed, gamma = 256, 3.0
    module = build(embed, HEADS, **SHORT, gamma_init=gamma)
    if build in FUSED:
        q, k, v = module.qkv_proj.weight.split(embed)
        # MAGNETO: 1 for q and k, gamma for v and out.
        expected = [(q, 1.0), (k, 1.0), (v, gamma), (module.out_proj.weight, gamma)]
    else:
        linears = (module.q_proj, module.k_proj, module.v_proj, module.out_proj)
        expected = [(linear.weight, gamma) for linear in linears]
    xavier = (2 / (2 * embed)) ** 0.5
    for weight, gain in expected:
        # Six standard errors of a standard deviation estimated from that many normal draws.
        bound = 6 / (2 * weight.numel()) ** 0.5
        assert abs(weight.std().item() / (gain * xavier) - 1) < bound
    assert all(not value.any() for name, value in module.named_parameters() if name == "bias")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [*FUSED, *SEPARATE])
def test_autocast_casts_as_sdpa_does(build: Callable[..., nn.Module], dtype: torch.dtype) -> None:
    module = build(EMBED, HEADS, **SHORT)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(torch.randn(1, N, EMBED, dtype=dtype))
    assert (out[0] if isinstance(out, tuple) else out).dtype == torch.bfloat16


@pytest.mark.parametrize("build", [*FUSED, *SEPARATE])
def test_device_and_dtype_reach_every_parameter(build: Callable[..., nn.Module]) -> None:
    module = build(EMBED, HEADS, **SHORT, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}
