"""The improved classes of the compat package give the numbers they gave until 0.2.0."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dilated_attention_compat as compat
from dilated_attention_oracle import tolerance
from support.legacy_defects import (
    in_torch,
    layer,
    naive_over_heads,
    over_heads,
    over_tokens,
    relative_error,
    with_gradients,
)

SEGMENTS, RATES = [16, 32, 64], [1, 2, 4]
PATTERN: dict[str, Any] = {"segments": SEGMENTS, "rates": RATES}
DATA = Path(__file__).parent / "data"
VECTORS = dict(np.load(DATA / "improved_vectors.npz"))
INPUTS = dict(np.load(DATA / "ring_vectors.npz"))
naive = functools.partial(naive_over_heads, **PATTERN)
wrong = functools.partial(over_heads, **PATTERN)


@pytest.fixture(autouse=True)
def _wrong_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Improved.* does not attend over tokens", RuntimeWarning)
        yield


def state() -> dict[str, torch.Tensor]:
    prefix = "ImprovedMultiheadDilatedAttention/state/"
    return {
        key.removeprefix(prefix): torch.tensor(array)
        for key, array in VECTORS.items()
        if key.startswith(prefix)
    }


def x() -> torch.Tensor:
    return torch.tensor(VECTORS["ImprovedMultiheadDilatedAttention/x"])


@pytest.mark.parametrize("mode", ["h6_full", "h7_full", "h6_causal", "h7_causal"])
def test_core_equals_the_historical_arrays(mode: str) -> None:
    heads, kind = mode.split("_")
    inputs = [INPUTS[f"inputs/{heads}/{name}"] for name in ("q", "k", "v")]
    dout = INPUTS[f"inputs/{heads}/dout"]
    causal = kind == "causal"
    reference = wrong(
        *(array.astype(np.float64) for array in inputs), causal, dout=dout.astype(np.float64)
    )
    plain = with_gradients(naive, inputs, dout, causal)
    ours = with_gradients(compat.ImprovedDilatedAttention(SEGMENTS, RATES), inputs, dout, causal)
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        stored = VECTORS[f"ImprovedDilatedAttention/{mode}/{name}"]
        tolerance.check(f"history {name}", stored, reference[i], plain[i], "float32")
        tolerance.check(f"compat {name}", ours[i], reference[i], plain[i], "float32")


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_multihead_equals_the_historical_arrays(causal: bool) -> None:
    attend = in_torch(lambda *a: wrong(*a)[0])
    reference = layer(attend, x(), state(), 6, causal, torch.float64)
    plain = layer(naive, x(), state(), 6, causal, torch.float32)
    module = compat.ImprovedMultiheadDilatedAttention(48, 6, RATES, SEGMENTS, device="cpu").eval()
    module.load_state_dict(state())
    with torch.no_grad():
        out, weights = module(x(), is_causal=causal)
    stored = VECTORS[f"ImprovedMultiheadDilatedAttention/{'causal' if causal else 'full'}/out"]
    assert weights is None
    tolerance.check("history", stored, reference, plain, "float32")
    tolerance.check("compat", out, reference, plain, "float32")


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_a_seed_gives_the_historical_initial_weights(gamma: float) -> None:
    torch.manual_seed(3)
    fresh = compat.ImprovedMultiheadDilatedAttention(
        48, 6, RATES, SEGMENTS, gamma_init=gamma, device="cpu"
    )
    scaled = state()
    scaled["qkv_proj.weight"][96:] *= gamma
    scaled["out_proj.weight"] *= gamma
    assert list(fresh.state_dict()) == list(scaled)
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, scaled[key], rtol=0, atol=0, msg=key)


def test_the_stated_error_is_the_measured_one() -> None:
    q, k, v = (INPUTS[f"inputs/h6/{name}"].astype(np.float64) for name in "qkv")
    right = functools.partial(over_tokens, **PATTERN)
    core, multi = [], []
    for causal in (False, True):
        core.append(relative_error(wrong(q, k, v, causal)[0], right(q, k, v, causal)))
        layers = (
            layer(in_torch(attend), x(), state(), 6, causal, torch.float64)
            for attend in (lambda *a: wrong(*a)[0], right)
        )
        multi.append(relative_error(*layers))
    assert compat.require("ImprovedDilatedAttention").relative_error == tuple(core)
    assert compat.require("ImprovedMultiheadDilatedAttention").relative_error == tuple(multi)


def test_dropout_falls_on_the_weights_and_on_the_output_in_training_only() -> None:
    core = compat.ImprovedDilatedAttention([64], [1], dropout=0.5)
    torch.manual_seed(0)
    ones = torch.ones(1, 64, 1, 4)
    kept = core(ones, ones, ones)
    assert set(kept.unique().tolist()) == {0.0, 4.0}
    torch.testing.assert_close(core.eval()(ones, ones, ones), ones, rtol=0, atol=0)


def test_training_leaves_k_ln_alone() -> None:
    module = compat.ImprovedMultiheadDilatedAttention(48, 6, RATES, SEGMENTS, device="cpu")
    for _ in range(2):
        module.zero_grad()
        module(x())[0].square().sum().backward()
    without = {name for name, p in module.named_parameters() if p.grad is None}
    assert without == {"k_ln.weight", "k_ln.bias"}


def test_making_the_historical_numbers_is_not_deprecated_but_forward_says_they_are_wrong() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        core = compat.ImprovedDilatedAttention([8], [1])
        multi = compat.ImprovedMultiheadDilatedAttention(8, 2, [1], [8], device="cpu")
        assert not seen
        core(*torch.ones(3, 1, 8, 2, 4))
        multi(torch.ones(1, 8, 8))
    assert [warning.category for warning in seen] == [RuntimeWarning, RuntimeWarning]
    assert [Path(warning.filename).name for warning in seen] == [Path(__file__).name] * 2
