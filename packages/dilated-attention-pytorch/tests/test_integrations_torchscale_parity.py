"""Models of microsoft/torchscale and Prov-GigaPath, before and after: their own code is run.

Needs an importable `torchscale` (for the slide encoder, `gigapath`, whose repository carries its
own copy of torchscale, which then has to be the one on the path). flash-attn is not needed: an
exact softmax stands in for it. `python test_integrations_torchscale_parity.py` writes this run's
numbers to data/torchscale_modules.npz and data/gigapath_slide_encoder.npz, which the other tests
hold us to where torchscale is absent.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dilated_attention_oracle import check
from dilated_attention_pytorch.integrations import compare, layers_of, replace_dilated_attention

DATA = Path(__file__).parent / "data"
Arrays = dict[str, np.ndarray[Any, Any]]

# Names of the settings are torchscale's. Segments that r does not divide, heads that r does not
# divide, padded segments and sequences: every one of its switches shows.
ATTENTION: dict[str, dict[str, Any]] = {
    "encoder": {"segment_length": "[5, 10, 64]", "dilated_ratio": "[1, 2, 4]"},
    "shifted": {"segment_length": "[7, 10]", "dilated_ratio": "[3, 4]", "subln": False},
    "decoder": {"segment_length": "[4, 16]", "dilated_ratio": "[1, 2]", "xpos_rel_pos": True},
}
N, EMBED, HEADS = 23, 24, 4


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float = 0.0,
    bias: None = None,
    softmax_scale: float | None = None,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """What flash-attn computes, (b, l, h, d) and lse (b, h, l), in float32 at least."""
    assert dropout == 0.0
    assert bias is None
    assert softmax_scale is None
    kind = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("bqhd,bkhd->bhqk", q.to(kind), k.to(kind)) * q.shape[-1] ** -0.5
    if is_causal:
        places = torch.arange(q.shape[1])
        scores = scores.masked_fill(places[None, :] > places[:, None], -torch.inf)
    out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v.to(kind))
    return out.to(q.dtype), scores.logsumexp(-1).detach()


def module_of(name: str) -> Any:
    """A module of torchscale with the stand-in for flash-attn; skips where there is none."""
    attention = "torchscale.component.multihead_attention"
    try:
        importlib.import_module(attention).flash_attn_func = flash_attention  # type: ignore[attr-defined]
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"torchscale or what it needs is not installed: {error}")


def slide_encoder(**options: Any) -> nn.Module:
    """Prov-GigaPath's class at a small size."""
    try:
        gigapath = importlib.import_module("gigapath.slide_encoder")
    except ImportError as error:
        pytest.skip(f"gigapath or what it needs is not installed: {error}")
    module_of("torchscale.component.dilated_attention")
    settings = importlib.import_module("torchscale.model.LongNetConfig")
    settings.LongNet_3_layers_32_dim = {  # type: ignore[attr-defined]
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 128,
        "encoder_attention_heads": 4,
        "flash_attention": True,
        "moe_freq": 0,
    }
    make = gigapath.make_longnet_from_name
    gigapath.make_longnet_from_name = lambda name, **given: make(
        name, **{**given, "segment_length": "[5, 10, 64]", "dilated_ratio": "[1, 2, 4]"}
    )
    try:
        built: nn.Module = gigapath.LongNetViT(
            in_chans=12,
            embed_dim=32,
            depth=3,
            slide_ngrids=10,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
            **options,
        )
        return built
    finally:
        gigapath.make_longnet_from_name = make


def attention(name: str, **options: Any) -> nn.Module:
    """torchscale's module with drawn parameters, in a parent that calls it."""
    component = module_of("torchscale.component.dilated_attention")
    config = importlib.import_module("torchscale.architecture.config")
    settings = {**ATTENTION[name], "flash_attention": True, **options}
    subln = settings.pop("subln", True)
    args = config.EncoderConfig(**settings)
    torch.manual_seed(5)
    parent = nn.Module()
    parent.self_attn = component.DilatedAttention(
        args, EMBED, HEADS, self_attention=True, subln=subln
    )
    for parameter in parent.parameters():
        nn.init.normal_(parameter, std=EMBED**-0.5)
    return parent


def run_attention(parent: nn.Module, x: Tensor, dout: Tensor, causal: bool) -> dict[str, Tensor]:
    """out, and gradients of the input and of every parameter."""
    x = x.detach().clone().requires_grad_()
    parent.zero_grad()
    out, weights = parent.self_attn(x, x, x, is_causal=causal)  # type: ignore[operator]
    assert weights is None
    out.backward(dout)
    found = {"out": out.detach(), "dx": x.grad}
    found |= {f"grad/{name}": p.grad for name, p in parent.named_parameters()}
    # A module that is cast casts its gradients, too.
    return {name: value.clone() for name, value in found.items() if value is not None}


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(7)
    x, dout = (torch.tensor(rng.standard_normal((2, N, EMBED))) for _ in range(2))
    return x.to(dtype), dout.to(dtype)


def assert_equal(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], plain: dict[str, Tensor], dtype: str
) -> None:
    """Ours within the budget that torchscale's own run in the dtype leaves.

    Some entries are zero but for rounding (softmax ignores a shift of the keys), so that gradients
    are judged as the one vector that they are.
    """
    assert ours.keys() == theirs.keys()
    names = [name for name in theirs if name not in ("out", "dx")]
    for group in (["out"], ["dx"], names):
        flat = [
            np.concatenate([x[name].double().numpy().ravel() for name in group])
            for x in (ours, theirs, plain)
        ]
        check(group[0], *flat, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ATTENTION)
def test_the_module_is_torchscales(name: str, dtype: str) -> None:
    causal = name == "decoder"
    # torchscale's xPos computes its angles in float32, whatever the model's dtype is.
    judged = "float32" if causal and dtype == "float64" else dtype
    theirs = run_attention(attention(name).double(), *inputs(), causal)
    plain = run_attention(
        attention(name).to(getattr(torch, judged)), *inputs(getattr(torch, judged)), causal
    )
    replaced = replace_dilated_attention(attention(name)).to(getattr(torch, dtype))
    assert list(replaced.state_dict()) == list(attention(name).state_dict())
    assert list(layers_of(replaced)) == ["self_attn"]
    ours = run_attention(replaced, *inputs(getattr(torch, dtype)), causal)
    assert ours["out"].dtype == getattr(torch, dtype)
    assert_equal(ours, theirs, plain, judged)


@pytest.mark.parametrize("name", ATTENTION)
def test_the_pinned_numbers_are_those_of_torchscales_code(name: str) -> None:
    with np.load(DATA / "torchscale_modules.npz") as stored:
        pinned = {k.removeprefix(f"{name}/"): stored[k] for k in stored.files if k.startswith(name)}
    for key, value in attention_vectors(name).items():
        assert np.allclose(value, pinned[key], atol=1e-13, rtol=0), key


def attention_vectors(name: str) -> Arrays:
    """What is pinned of one module: parameters, results in float64, results in float32."""
    causal = name == "decoder"
    parent = attention(name)
    found = {f"state/{key}": value for key, value in parent.state_dict().items()}
    found |= {"x": inputs()[0], "dout": inputs()[1]}
    for dtype in (torch.float64, torch.float32):
        results = run_attention(parent.to(dtype), *inputs(dtype), causal)
        found |= {f"{str(dtype).split('.')[1]}/{key}": value for key, value in results.items()}
    return {key: value.numpy().copy() for key, value in found.items()}


def build(kind: str) -> nn.Module:
    """A whole model of torchscale, as its users build it."""
    longnet = module_of("torchscale.model.LongNet")
    config = importlib.import_module("torchscale.architecture.config")
    embedding = importlib.import_module("torchscale.component.embedding")
    torch.manual_seed(2)
    settings = {
        "segment_length": "[5, 10, 64]",
        "dilated_ratio": "[1, 2, 4]",
        "flash_attention": True,
        "vocab_size": 11,
    }
    for side in ("encoder", "decoder"):
        settings |= {
            f"{side}_embed_dim": 32,
            f"{side}_attention_heads": 4,
            f"{side}_ffn_embed_dim": 48,
            f"{side}_layers": 2,
        }
    tokens = embedding.TextEmbedding(11, 32)
    places = embedding.PositionalEmbedding(40, 32)
    if kind == "encoder":
        args = config.EncoderConfig(**settings)
        built: nn.Module = longnet.LongNetEncoder(args, tokens, places)
    else:
        args = config.DecoderConfig(**settings, xpos_rel_pos=True)
        built = longnet.LongNetDecoder(args, tokens, places)
    return built.double().eval()


def run_model(model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    tokens = torch.tensor(np.random.default_rng(0).integers(11, size=(2, N)))
    found = model(tokens)
    out = found["encoder_out"] if isinstance(found, dict) else found[0]
    model.zero_grad()
    out.square().mean().backward()
    return out.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_whole_models_are_torchscales(kind: str) -> None:
    out, gradients = run_model(build(kind))
    plain, plain_gradients = run_model(build(kind).float())
    replaced = replace_dilated_attention(build(kind))
    assert list(replaced.state_dict()) == list(build(kind).state_dict())
    found, ours = run_model(replaced)
    judged = "float32" if kind == "decoder" else "float64"
    check("out", found, out, plain.double() if kind == "decoder" else out, judged)
    flat, want, naive = (
        torch.cat([x.double().ravel() for x in values])
        for values in (ours, gradients, plain_gradients if kind == "decoder" else gradients)
    )
    check("gradients", flat, want, naive, judged)


def test_torchscales_decoder_generates_from_its_cache() -> None:
    model = replace_dilated_attention(build("decoder"), exact=True)
    tokens = torch.tensor(np.random.default_rng(0).integers(11, size=(2, N)))
    expected = model(tokens)[0].detach().numpy()
    state: dict[Any, Any] = {"is_first_step": True}
    found = [model(tokens[:, :6], incremental_state=state)[0]]
    state["is_first_step"] = False
    found += [model(tokens[:, :i], incremental_state=state)[0] for i in range(7, N + 1)]
    logits = torch.cat(found, dim=1).detach().numpy()
    check("logits", logits, expected, expected, "float64")


def test_the_exact_operator_is_another() -> None:
    model = replace_dilated_attention(build("encoder"))
    tokens = torch.tensor(np.random.default_rng(0).integers(11, size=(2, N)))
    report = compare(model, tokens)
    assert [layer.name for layer in report.layers] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert all(layer.alone.relative > 0.01 for layer in report.layers)


def tiles() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(9)
    x = torch.tensor(rng.standard_normal((2, N, 12)))
    return x, torch.tensor(rng.integers(0, 10 * 256, size=(2, N, 2)).astype(np.float64))


def run_slides(model: nn.Module) -> dict[str, Tensor]:
    x, coords = tiles()
    dtype = next(model.parameters()).dtype
    found = model(x.to(dtype), coords, all_layer_embed=True)
    last = model(x.to(dtype), coords)[0]
    model.zero_grad()
    last.square().sum().backward()
    results = {f"layer{i}": value.detach() for i, value in enumerate(found)}
    gradients = {
        f"grad/{name}": p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    return {"out": last.detach(), **results, **gradients}


def slide_vectors() -> Arrays:
    torch.manual_seed(3)
    model = slide_encoder(dropout=0.0, drop_path_rate=0.0)
    model.eval()
    found = {f"state/{key}": value for key, value in model.state_dict().items()}
    found |= dict(zip(("x", "coords"), tiles(), strict=True))
    found |= {f"float64/{key}": value for key, value in run_slides(model.double()).items()}
    return {key: value.numpy().copy() for key, value in found.items()}


def test_the_pinned_slide_encoder_is_gigapaths() -> None:
    with np.load(DATA / "gigapath_slide_encoder.npz") as stored:
        for key, value in slide_vectors().items():
            assert np.allclose(value, stored[key], atol=1e-12, rtol=0), key


def test_gigapaths_slide_encoder_is_itself_after_the_change() -> None:
    torch.manual_seed(3)
    theirs = slide_encoder(dropout=0.0, drop_path_rate=0.0).double().eval()
    expected = run_slides(theirs)
    ours = run_slides(replace_dilated_attention(theirs))
    flat, want = (
        np.concatenate([x[name].numpy().ravel() for name in expected]) for x in (ours, expected)
    )
    check("slide encoder", flat, want, want, "float64")


if __name__ == "__main__":
    try:
        vectors = {
            f"{name}/{key}": value
            for name in ATTENTION
            for key, value in attention_vectors(name).items()
        }
        np.savez_compressed(DATA / "torchscale_modules.npz", **vectors)
        np.savez_compressed(DATA / "gigapath_slide_encoder.npz", **slide_vectors())
    except pytest.skip.Exception as absent:
        print(absent)
