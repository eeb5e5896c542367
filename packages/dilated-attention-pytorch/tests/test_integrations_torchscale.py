"""Replaced attention where torchscale is absent: its pinned numbers, padding, dtypes, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dilated_attention_oracle import check
from dilated_attention_pytorch import AttentionWeights
from dilated_attention_pytorch.integrations import (
    attention_maps,
    compare,
    layers_of,
    padding,
    replace_dilated_attention,
)
from support.torchscale_modules import (
    BRANCHES,
    EMBED,
    HEADS,
    Arrays,
    Model,
    bare,
    built,
    lengths_mask,
    pinned,
)


def run(model: Model, x: Tensor, dout: Tensor, **options: Any) -> Arrays:
    x = x.clone().requires_grad_()
    out = model(x, **options)
    out.backward(dout)
    found = {"out": out.detach(), "dx": x.grad}
    found |= {f"grad/{name}": p.grad for name, p in model.named_parameters()}
    return {name: value.double().numpy() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BRANCHES)
def test_outputs_and_gradients_are_those_that_torchscale_gave(name: str, dtype: str) -> None:
    vectors = pinned(name)
    kind = getattr(torch, dtype)
    # torchscale's xPos computes its angles in float32, whatever the model's dtype is.
    judged = "float32" if name == "decoder" else dtype
    x, dout = (torch.tensor(vectors[key]).to(kind) for key in ("x", "dout"))
    found = run(built(name, kind), x, dout, is_causal=name == "decoder")
    gradients = [key for key in found if key.startswith("grad/")]
    assert {f"float64/{key}" for key in found} <= vectors.keys()
    for group in (["out"], ["dx"], gradients):
        ours = np.concatenate([found[key].ravel() for key in group])
        theirs, plain = (
            np.concatenate([vectors[f"{run}/{key}"].ravel() for key in group])
            for run in ("float64", judged)
        )
        check(group[0], ours, theirs, plain, judged)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder", "inner_attn_ln"),
        ("encoder", "exact"),
        ("decoder", "xpos"),
        ("decoder", "is_causal"),
    ],
)
def test_each_part_of_the_module_shows(name: str, change: str) -> None:
    """Sub-LN, torchscale's switches, xPos, causality: without one of them the numbers differ."""
    x = torch.tensor(pinned(name)["x"])
    causal = name == "decoder"
    model = built(name, exact=change == "exact")
    if change in ("inner_attn_ln", "xpos"):
        setattr(model.self_attn, change, None)
    found = model(x, is_causal=causal and change != "is_causal")
    assert (found - built(name)(x, is_causal=causal)).abs().max() > 1e-3


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["encoder", "shifted", "decoder"])
def test_a_padded_batch_is_its_sequences_alone(name: str, exact: bool) -> None:
    model = built(name, exact=exact)
    x = torch.tensor(pinned(name)["x"])
    lengths = [x.shape[1], 14]
    mask = lengths_mask(lengths, x.shape[1])
    spoiled = x.masked_fill(mask[..., None], torch.nan)
    causal = name == "decoder"
    out = model(spoiled, mask, is_causal=causal)
    with padding(model, mask):
        told = model(spoiled, torch.zeros_like(mask), is_causal=causal)
    for i, length in enumerate(lengths):
        alone = model(x[i : i + 1, :length], is_causal=causal)[0].detach().numpy()
        for found in (out, told):
            check("slide", found[i, :length].detach().numpy(), alone, alone, "float64")
    assert (model(x, torch.zeros_like(mask)) == model(x)).all()


def test_a_mask_in_the_middle_needs_the_exact_operator() -> None:
    x = torch.tensor(pinned("encoder")["x"])
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    mask[1, 3] = True
    with pytest.raises(ValueError, match="without exact=True padding must be at the end"):
        built("encoder")(x, mask)
    spoiled = x.masked_fill(mask[..., None], 1e3)
    model = built("encoder", exact=True)
    seen = ~mask
    assert torch.allclose(model(x, mask)[seen], model(spoiled, mask)[seen], atol=1e-12)


def test_a_mask_that_changes_in_place_is_read_again() -> None:
    model = built("encoder")
    x = torch.tensor(pinned("encoder")["x"])
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    whole = model(x, mask)
    mask[1, 14:] = True
    assert not torch.allclose(model(x, mask)[1], whole[1])
    with torch.inference_mode():
        inside = mask.clone()
        first = model(x, inside)
        inside[1, 5:] = True
        assert not torch.allclose(model(x, inside)[1], first[1])


def test_a_slide_without_tiles_and_an_empty_batch_of_padding() -> None:
    model = built("encoder")
    x = torch.tensor(pinned("encoder")["x"])
    mask = lengths_mask([0, x.shape[1]], x.shape[1])
    found = model(x, mask)
    assert torch.isfinite(found).all()
    assert torch.allclose(found[1], model(x)[1], atol=1e-12)


def test_dropout_needs_the_exact_operator_and_eval_has_none() -> None:
    x = torch.tensor(pinned("encoder")["x"], dtype=torch.float32)
    model = replace_dilated_attention(bare(attention_dropout=0.5))
    with pytest.raises(ValueError, match="in training needs exact=True"):
        model(x)
    assert (model.eval()(x) == model(x)).all()
    model.train()
    layers_of(model)["self_attn"].exact = True
    assert not torch.allclose(model(x), model(x))


def test_autocast() -> None:
    model = built("encoder", torch.float32)
    x = torch.tensor(pinned("encoder")["x"], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), model(x), atol=0.1)


def test_compare_measures_the_operators_apart() -> None:
    x = torch.tensor(pinned("encoder")["x"])
    model = built("encoder").train()
    report = compare(model, x)
    right, exact = (built("encoder", exact=which)(x).detach() for which in (False, True))
    (layer,) = report.layers
    assert layer.alone == layer.accumulated
    assert layer.alone.largest == float((exact - right).abs().max())
    assert layer.alone.relative == pytest.approx(
        float((exact - right).abs().mean() / right.abs().mean())
    )
    assert layer.alone.relative > 0.01
    assert "self_attn: alone" in str(report)
    assert model.training
    assert not layers_of(model)["self_attn"].exact
    assert not layers_of(model)["self_attn"]._forward_hooks


@pytest.mark.parametrize("exact", [False, True])
def test_attention_maps_give_the_layers_output(exact: bool) -> None:
    model = built("decoder", exact=exact)
    x = torch.tensor(pinned("decoder")["x"])
    rows = [0, 22, 7]
    (found,) = attention_maps(model, rows, x, is_causal=True).values()
    assert isinstance(found, AttentionWeights)
    layer = layers_of(model)["self_attn"]
    value = layer.get_submodule("v_proj")(x).unflatten(-1, (HEADS, -1))
    summed = torch.einsum("bmhk,bkhd->bmhd", found.dense(), value).flatten(-2)
    assert layer.inner_attn_ln is not None
    out = layer.out_proj(layer.inner_attn_ln(summed)).detach().numpy()
    expected = model(x, is_causal=True)[:, rows].detach().numpy()
    check("maps", out, expected, expected, "float64", np.ones_like(expected))


def test_optimizers_keep_their_parameters() -> None:
    model = bare()
    before = list(model.parameters())
    replaced = replace_dilated_attention(model.eval())
    assert replaced is model
    assert all(a is b for a, b in zip(replaced.parameters(), before, strict=True))
    assert not replaced.self_attn.training


def test_a_shared_module_stays_one() -> None:
    attention = bare().self_attn
    model = nn.ModuleList([Model(attention), Model(attention)])
    replace_dilated_attention(model)
    first, second = (x.self_attn for x in model)
    assert first is second


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("attn_mask", torch.zeros(9, 9)),
        ("rel_pos", torch.zeros(9, 9)),
    ],
)
def test_what_is_not_served_is_refused(argument: str, value: Any) -> None:
    model = replace_dilated_attention(bare())
    x = torch.randn(1, 9, EMBED)
    with pytest.raises(ValueError, match=f"takes no {argument}"):
        model.self_attn(x, x, x, **{argument: value})


def test_wrong_masks_are_refused() -> None:
    model = replace_dilated_attention(bare())
    x = torch.randn(1, 9, EMBED)
    with pytest.raises(TypeError, match=r"must be bool, True = ignore, got torch\.float32"):
        model(x, torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"\(batch, rows\) = \(1, 9\), got \(1, 8\)"):
        model(x, torch.zeros(1, 8, dtype=torch.bool))


def test_models_that_cannot_be_replaced_are_refused() -> None:
    with pytest.raises(ValueError, match="found no torchscale DilatedAttention"):
        replace_dilated_attention(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="pass the model that holds it"):
        replace_dilated_attention(bare().self_attn)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got dict"):
        replace_dilated_attention({})  # type: ignore[type-var]
    with pytest.raises(ValueError, match="replaced already"):
        replace_dilated_attention(replace_dilated_attention(bare()))
    with pytest.raises(ValueError, match="layout must be 'replicated' or 'sharded', got 'zigzag'"):
        replace_dilated_attention(bare(), layout="zigzag")
    with pytest.raises(ValueError, match="call replace_dilated_attention"):
        compare(bare(), torch.zeros(1, 2, EMBED))


def test_an_average_over_padding_is_refused() -> None:
    model = replace_dilated_attention(bare())
    model.global_pool = True  # type: ignore[assignment]
    with (
        pytest.raises(ValueError, match="averages over all rows"),
        padding(model, torch.zeros(1, 9, dtype=torch.bool)),
    ):
        pass
