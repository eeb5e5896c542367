"""Replaced models, the slide encoder and generation on a CUDA device: `pytest -m cuda`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.integrations import (
    SlideEncoder,
    layers_of,
    padding,
    replace_dilated_attention,
)
from dilated_attention_pytorch.models import DecoderConfig, DilatedDecoderLM
from support.torchscale_modules import BRANCHES, bare, built, lengths_mask, pinned

DEVICE = "cuda"
DATA = Path(__file__).parent / "data" / "gigapath_slide_encoder.npz"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def slide_encoder(device: str, dtype: torch.dtype) -> SlideEncoder:
    with np.load(DATA) as stored:
        state = {
            key.removeprefix("state/"): torch.tensor(stored[key])
            for key in stored.files
            if key.startswith("state/")
        }
    pattern = DilationPattern.torchscale(
        [5, 10, 64], [1, 2, 4], phantom_keys=True, detach_mix=True, shift_rows=True
    )
    sizes: dict[str, Any] = {"in_chans": 12, "embed_dim": 32, "depth": 3, "num_heads": 4}
    model = SlideEncoder(**sizes, slide_ngrids=10, pattern=pattern)
    model.load_state_dict(state)
    return model.to(device, dtype).eval()


def slides(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Tiles as they are after rounding to the dtype, and coordinates."""
    with np.load(DATA) as stored:
        x, coords = (torch.tensor(stored[key]) for key in ("x", "coords"))
    return x.to(dtype), coords


def step(device: str, dtype: torch.dtype, rounded: torch.dtype, *, padded: bool) -> list[Any]:
    """Every layer's embedding and all gradients, as two vectors."""
    model = slide_encoder(device, rounded).to(dtype)
    x, coords = slides(rounded)
    mask = lengths_mask([x.shape[1], 11], x.shape[1]).to(device) if padded else None
    found = model(
        x.to(device, dtype), coords.to(device), all_layer_embed=True, key_padding_mask=mask
    )
    out = torch.stack(found)
    direction = torch.linspace(-1, 1, out.shape[-1], device=device, dtype=torch.float64)
    (out.double() * direction).sum().backward()
    gradients = [p.grad.ravel() for _, p in sorted(model.named_parameters()) if p.grad is not None]
    return [t.detach().double().cpu().numpy().ravel() for t in (out, torch.cat(gradients))]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_slide_encoder_is_the_one_of_the_cpu(dtype: str, padded: bool) -> None:
    kind = getattr(torch, dtype)
    expected = step("cpu", torch.float64, kind, padded=padded)
    plain = step("cpu", kind, kind, padded=padded)
    found = step(DEVICE, kind, kind, padded=padded)
    for name, *numbers in zip(("layers", "gradients"), found, expected, plain, strict=True):
        check(name, *numbers, dtype)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_model_on_the_device_is_replaced_there(name: str, exact: bool) -> None:
    on_cpu = built(name, torch.float32, exact=exact)
    model = bare(name).to(DEVICE)
    model.load_state_dict(on_cpu.state_dict())
    replace_dilated_attention(model, exact=exact)
    assert {p.device.type for p in model.parameters()} == {DEVICE}
    x = torch.tensor(pinned(name)["x"]).float()
    reference = built(name, exact=exact)
    causal = name == "decoder"
    with padding(model, lengths_mask([23, 14], 23).to(DEVICE)):
        model(x.to(DEVICE), is_causal=causal)
    found = model(x.to(DEVICE), is_causal=causal).detach().cpu().numpy()
    expected = reference(x.double(), is_causal=causal).detach().numpy()
    check("out", found, expected, on_cpu(x, is_causal=causal).detach().numpy(), "float32")


def test_the_cache_gives_the_rows_of_the_whole_sequence() -> None:
    model = built("decoder", torch.float32, exact=True).eval().to(DEVICE)
    x = torch.tensor(pinned("decoder")["x"]).float().to(DEVICE)
    layer, state = layers_of(model)["self_attn"], {}
    pieces = [layer(p, p, p, state, is_causal=True)[0] for p in x.split([9, *[1] * 14], dim=1)]
    expected = model(x, is_causal=True).detach().cpu().numpy()
    check("cached", torch.cat(pieces, 1).detach().cpu().numpy(), expected, expected, "float32")


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_token_by_token_are_those_of_the_whole_text(dtype: str) -> None:
    torch.manual_seed(0)
    config = DecoderConfig(DilationPattern.longnet([5, 12, 40], [1, 2, 3]), vocab_size=17)
    kind = getattr(torch, dtype)
    model = DilatedDecoderLM(config).to(kind)
    tokens = torch.randint(17, (2, 33))
    plain = model(tokens).double().numpy()
    expected = model.double()(tokens).numpy()
    model = model.to(DEVICE, kind)
    cache = model.empty_cache()
    logits = [model(piece, cache=cache) for piece in tokens.to(DEVICE).split(1, dim=1)]
    check("logits", torch.cat(logits, 1).double().cpu().numpy(), expected, plain, dtype)
