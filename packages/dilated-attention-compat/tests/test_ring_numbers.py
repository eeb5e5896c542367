"""The ring classes give the historical numbers, forward, backward and at initialisation.

The defect is stated twice, independently of the package: in NumPy float64 as the reference, and
in plain PyTorch float32 as the naive run that the tolerance is derived from.
"""

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
VECTORS = dict(np.load(Path(__file__).parent / "data" / "ring_vectors.npz"))
CORES = [
    "RingDilatedAttention",
    "UnfoldRingDilatedAttention",
    "OptimizedUnfoldRingDilatedAttention",
    "DistributedImprovedDilatedAttention",
]
NAMES = ("out", "dq", "dk", "dv")
naive = functools.partial(naive_over_heads, **PATTERN)


@pytest.fixture(autouse=True)
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def make(name: str, *args: Any, **options: Any) -> Any:
    # By name: type checkers flag the classes themselves, as they should.
    return getattr(compat, name)(*args, **options)


@pytest.mark.parametrize("mode", ["h6_full", "h7_full", "h6_causal", "h7_causal"])
@pytest.mark.parametrize("name", CORES)
def test_cores_equal_the_historical_arrays(name: str, mode: str) -> None:
    heads, kind = mode.split("_")
    inputs = [VECTORS[f"inputs/{heads}/{x}"] for x in ("q", "k", "v")]
    dout = VECTORS[f"inputs/{heads}/dout"]
    causal = kind == "causal"
    reference = over_heads(
        *(x.astype(np.float64) for x in inputs), causal, **PATTERN, dout=dout.astype(np.float64)
    )
    plain = with_gradients(naive, inputs, dout, causal)
    ours = with_gradients(make(name, SEGMENTS, RATES), inputs, dout, causal)
    for i, array in enumerate(NAMES):
        stored = VECTORS[f"RingDilatedAttention/{mode}/{array}"]
        tolerance.check(f"history {array}", stored, reference[i], plain[i], "float32")
        tolerance.check(f"compat {array}", ours[i], reference[i], plain[i], "float32")


def state() -> dict[str, torch.Tensor]:
    prefix = "RingMultiheadDilatedAttention/state/"
    return {
        key.removeprefix(prefix): torch.tensor(array)
        for key, array in VECTORS.items()
        if key.startswith(prefix)
    }


def multihead() -> Any:
    module = make("RingMultiheadDilatedAttention", 48, 6, SEGMENTS, RATES, device="cpu").eval()
    module.load_state_dict(state())
    return module


def x() -> torch.Tensor:
    return torch.tensor(VECTORS["RingMultiheadDilatedAttention/x"])


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_multihead_equals_the_historical_arrays(causal: bool) -> None:
    wrong = in_torch(lambda q, k, v, c: over_heads(q, k, v, c, **PATTERN)[0])
    reference = layer(wrong, x(), state(), 6, causal, torch.float64)
    plain = layer(naive, x(), state(), 6, causal, torch.float32)
    with torch.no_grad():
        out, weights = multihead()(x(), is_causal=causal)
    stored = VECTORS[f"RingMultiheadDilatedAttention/{'causal' if causal else 'full'}/out"]
    assert weights is None
    tolerance.check("history", stored, reference, plain, "float32")
    tolerance.check("compat", out, reference, plain, "float32")


def test_a_seed_gives_the_historical_initial_weights() -> None:
    torch.manual_seed(3)
    fresh = make("RingMultiheadDilatedAttention", 48, 6, SEGMENTS, RATES, device="cpu")
    stored = state()
    assert list(fresh.state_dict()) == list(stored)
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, stored[key], rtol=0, atol=0, msg=key)


def test_gamma_scales_the_value_projection_only() -> None:
    torch.manual_seed(3)
    fresh = make(
        "RingMultiheadDilatedAttention", 48, 6, SEGMENTS, RATES, gamma_init=2.0, device="cpu"
    )
    scaled = state()
    scaled["qkv_proj.weight"][96:] *= 2.0
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, scaled[key], rtol=0, atol=0, msg=key)


def test_the_stated_error_is_the_measured_one() -> None:
    q, k, v = (VECTORS[f"inputs/h6/{name}"].astype(np.float64) for name in "qkv")
    wrong = functools.partial(over_heads, **PATTERN)
    right = functools.partial(over_tokens, **PATTERN)
    core, multi = [], []
    for causal in (False, True):
        core.append(relative_error(wrong(q, k, v, causal)[0], right(q, k, v, causal)))
        layers = (
            layer(in_torch(attend), x(), state(), 6, causal, torch.float64)
            for attend in (lambda *a: wrong(*a)[0], right)
        )
        multi.append(relative_error(*layers))
    for name in CORES:
        assert compat.require(name).relative_error == tuple(core)
    assert compat.require("RingMultiheadDilatedAttention").relative_error == tuple(multi)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("name", [*CORES, "RingMultiheadDilatedAttention"])
def test_no_token_notices_another(name: str, causal: bool) -> None:
    multi = name == "RingMultiheadDilatedAttention"
    module = multihead() if multi else make(name, SEGMENTS, RATES)
    torch.manual_seed(0)
    before = torch.randn((1, 64, 48) if multi else (1, 64, 6, 4))
    for t in (0, 8, 63):
        after = before.clone()
        after[:, t] += torch.randn(before.shape[2:])
        with torch.no_grad():
            outs = [module(y, y, y, is_causal=causal) for y in (before, after)]
        was, now = (out[0] if multi else out for out in outs)
        moved = (now - was).flatten(2).abs().amax((0, 2))
        assert moved.nonzero().flatten().tolist() == [t]


def test_cross_inputs_use_their_own_projection() -> None:
    module = multihead()
    torch.manual_seed(0)
    inputs = torch.randn(3, 1, 64, 48)
    with torch.no_grad():
        crossed = module(*inputs)[0]
        q, k, v = (
            module.qkv_proj(t)[..., i * 48 : (i + 1) * 48].reshape(1, 64, 6, 8)
            for i, t in enumerate(inputs)
        )
        assert module.q_ln is not None
        expected = module.out_proj(module.q_ln(naive(q, k, v, False).flatten(2)))
        mixed = over_heads(*(y.double().numpy() for y in (q, k, v)), False, **PATTERN)[0]
        module.double()
        exact = module.out_proj(module.q_ln(torch.tensor(mixed).flatten(2)))
    tolerance.check("crossed", crossed, exact, expected, "float32")


@pytest.mark.parametrize("name", CORES)
def test_dropout_in_training_only(name: str) -> None:
    core = make(name, [64], [1], dropout=0.5)
    torch.manual_seed(0)
    ones = torch.ones(1, 64, 1, 4)
    kept = core(ones, ones, ones)
    # One head: a single weight, doubled where kept. Dropout on the output, after dropout on the
    # weights, doubles again, and takes single channels away.
    doubled = {"RingDilatedAttention": 2.0}.get(name, 4.0)
    assert set(kept.unique().tolist()) == {0.0, doubled}
    rows = kept.flatten(2).ne(0)
    assert bool((rows.all(-1) | ~rows.any(-1)).all()) == (doubled == 2.0)
    torch.testing.assert_close(core.eval()(ones, ones, ones), ones, rtol=0, atol=0)


def test_two_training_steps_with_and_without_checkpointing() -> None:
    results = []
    for use_checkpointing in (True, False):
        torch.manual_seed(3)
        module = make(
            "RingMultiheadDilatedAttention",
            *(48, 6, SEGMENTS, RATES),
            use_checkpointing=use_checkpointing,
            device="cpu",
        )
        for _ in range(2):
            module.zero_grad()
            module(x())[0].square().sum().backward()
        grads = {name: p.grad for name, p in module.named_parameters()}
        assert grads["k_ln.weight"] is None
        results.append({name: g for name, g in grads.items() if g is not None})
    for name, grad in results[0].items():
        torch.testing.assert_close(grad, results[1][name], rtol=0, atol=0, msg=name)
