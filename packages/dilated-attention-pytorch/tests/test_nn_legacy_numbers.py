"""The historical classes that were right keep their numbers, forward and backward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, check
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_pytorch.nn import (
    DilatedAttention,
    MultiheadDilatedAttention,
    RingAttentionCorrectV2,
)

with np.load(Path(__file__).parent / "data" / "legacy_modules.npz") as archive:
    LEGACY = dict(archive)
SEGMENTS, RATES = (16, 32, 64), (1, 2, 4)
GROUPED = Pattern(((16, 1), (32, 2), (64, 4)), "head_groups")


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(LEGACY[name])


@pytest.mark.parametrize("case", ["h6_full", "h7_full", "h6_causal", "h7_causal"])
def test_dilated_attention(case: str) -> None:
    heads, kind = case.split("_")
    q, k, v = (tensor(f"inputs/{heads}/{name}").requires_grad_() for name in "qkv")
    dout = LEGACY[f"inputs/{heads}/dout"]
    out = DilatedAttention(SEGMENTS, RATES)(q, k, v, kind == "causal")
    out.backward(torch.from_numpy(dout))

    arrays = [LEGACY[f"inputs/{heads}/{name}"] for name in "qkv"]
    # The output is divided by the number of branches, so the gradients are those of dout / 3.
    options = {"dout": dout.astype(np.float64) / 3, "is_causal": kind == "causal"}
    exact = reference(*arrays, GROUPED, **options)
    plain = naive(*arrays, GROUPED, "float32", **options)
    ours = {"out": out.detach(), "dq": q.grad, "dk": k.grad, "dv": v.grad}
    for name, value in ours.items():
        scale = 1 / 3 if name == "out" else 1.0
        want, budget = getattr(exact, name) * scale, getattr(plain, name) * scale
        assert value is not None
        check(name, value.numpy(), want, budget, "float32")
        # The budget is only meaningful if history itself lies within it.
        historical = LEGACY[f"DilatedAttention/{case}/{name}"]
        check(f"historical {name}", historical, want, budget, "float32")


def multihead(x: np.ndarray, state: dict[str, np.ndarray], causal: bool, dtype: str) -> np.ndarray:
    """The historical pipeline in the dtype: LayerNorm on q and k, and q_ln again on the output."""
    state = {name: value.astype(dtype) for name, value in state.items()}

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, value: np.ndarray) -> np.ndarray:
        centred = value - value.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        unit = centred / np.sqrt(variance + np.asarray(1e-5, dtype))
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = x.astype(dtype)
    q, k = norm("q_ln", linear("q_proj", x)), norm("k_ln", linear("k_proj", x))
    heads = [value.reshape(*x.shape[:2], 6, -1) for value in (q, k, linear("v_proj", x))]
    attend = reference if dtype == "float64" else naive
    result = attend(*heads, GROUPED, dtype, dout=np.zeros_like(heads[0]), is_causal=causal)
    out = (result.out / len(GROUPED.branches)).astype(dtype).reshape(x.shape)
    return linear("out_proj", norm("q_ln", out))


@pytest.mark.parametrize("case", ["full", "causal"])
def test_multihead_dilated_attention(case: str) -> None:
    prefix = f"MultiheadDilatedAttention/{case}/"
    state = {
        name.removeprefix(f"{prefix}state/"): LEGACY[name]
        for name in LEGACY
        if name.startswith(f"{prefix}state/")
    }
    module = MultiheadDilatedAttention(48, 6, RATES, SEGMENTS)
    assert list(module.state_dict()) == list(state)
    # Fresh norms are the identity; other values tell q_ln's two roles and k_ln apart.
    generator = np.random.default_rng(0)
    for fresh in (True, False):
        if not fresh:
            for name in ("q_ln.weight", "q_ln.bias", "k_ln.weight", "k_ln.bias"):
                state[name] = generator.normal(1, 0.5, 48).astype(np.float32)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        x = LEGACY[f"{prefix}x"]
        out = module(torch.from_numpy(x), is_causal=case == "causal")
        assert isinstance(out, torch.Tensor)
        want = multihead(x, state, case == "causal", "float64")
        budget = multihead(x, state, case == "causal", "float32")
        check("out", out.detach().numpy(), want, budget, "float32")
        if fresh:
            check("historical out", LEGACY[f"{prefix}out"], want, budget, "float32")


@pytest.mark.parametrize("ring_size", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["full", "causal"])
def test_ring_attention_correct_v2_is_dense(ring_size: int, kind: str) -> None:
    arrays = [LEGACY[f"inputs/correct/{name}"] for name in "qkv"]
    out = RingAttentionCorrectV2()(
        *(torch.from_numpy(array) for array in arrays), ring_size, kind == "causal"
    )
    dense = Pattern(((64, 1),))
    options = {"dout": np.zeros_like(arrays[0]), "is_causal": kind == "causal"}
    want = reference(*arrays, dense, **options).out
    budget = naive(*arrays, dense, "float32", **options).out
    check("out", out.numpy(), want, budget, "float32")
    historical = LEGACY[f"RingAttentionCorrectV2/ring{ring_size}_{kind}/out"]
    check("historical out", historical, want, budget, "float32")
