"""The first `UnfoldRingDilatedAttention`: larger groups last, and rate 1 with axes exchanged."""

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
    naive_over_heads,
    over_heads,
    over_tokens,
    relative_error,
    with_gradients,
)

NAME = "ring_dilated_attention_unfold.UnfoldRingDilatedAttention"
SEGMENTS, RATES = [16, 32, 64], [2, 2, 4]
PATTERN: dict[str, Any] = {"segments": SEGMENTS, "rates": RATES}
VECTORS = dict(np.load(Path(__file__).parent / "data" / "ring_vectors.npz"))


@pytest.fixture(autouse=True)
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def make(*args: Any, **options: Any) -> Any:
    return compat.load(compat.require(NAME))(*args, **options)


@pytest.mark.parametrize("mode", ["h6_full", "h7_full", "h6_causal", "h7_causal"])
def test_rates_above_one_attend_over_heads_with_the_larger_groups_last(mode: str) -> None:
    heads, kind = mode.split("_")
    inputs = [VECTORS[f"inputs/{heads}/{name}"] for name in ("q", "k", "v")]
    dout = VECTORS[f"inputs/{heads}/dout"]
    causal = kind == "causal"
    reference = over_heads(
        *(array.astype(np.float64) for array in inputs),
        causal,
        **PATTERN,
        dout=dout.astype(np.float64),
        larger_last=True,
    )
    naive = functools.partial(naive_over_heads, **PATTERN, larger_last=True)
    plain = with_gradients(naive, inputs, dout, causal)
    ours = with_gradients(make(SEGMENTS, RATES), inputs, dout, causal)
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        tolerance.check(name, ours[i], reference[i], plain[i], "float32")


def exchanged(x: Any, w: int) -> Any:
    """Position and channel of each segment change places, one entry at a time."""
    y = x.copy()
    for p, c in np.ndindex(x.shape[1], x.shape[3]):
        y[:, p, :, c] = x[:, p // w * w + c, :, p % w]
    return y


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_rate_one_exchanges_positions_and_channels(causal: bool) -> None:
    inputs = [VECTORS[f"inputs/h6/{name}"] for name in ("q", "k", "v")]
    turned = [exchanged(array, 4) for array in inputs]
    pattern: dict[str, Any] = {"segments": [4], "rates": [1]}
    exact = [array.astype(np.float64) for array in turned]
    reference = over_heads(*exact, causal, **pattern)[0]
    plain = naive_over_heads(*(torch.tensor(array) for array in turned), causal, **pattern)
    ours = make([4], [1])(*(torch.tensor(array) for array in inputs), causal)
    tolerance.check("out", ours, reference, plain, "float32")


def test_the_stated_error_is_the_measured_one() -> None:
    q, k, v = (VECTORS[f"inputs/h6/{name}"].astype(np.float64) for name in "qkv")
    measured = tuple(
        relative_error(
            over_heads(q, k, v, causal, **PATTERN, larger_last=True)[0],
            over_tokens(q, k, v, causal, **PATTERN),
        )
        for causal in (False, True)
    )
    assert compat.require(NAME).relative_error == measured


def test_rate_one_with_another_segment_length_raises_as_it_did() -> None:
    with pytest.raises(RuntimeError, match=r"never ran with dilation rate 1 .* use Ring"):
        make([8], [1])(*torch.zeros(3, 1, 8, 2, 4))


def test_a_segment_longer_than_the_sequence_leaves_its_group_empty() -> None:
    x = torch.randn(1, 32, 6, 4)
    out = make(SEGMENTS, RATES)(x, x, x)
    assert out[:, :, :4].ne(0).any()
    assert out[:, :, 4:].eq(0).all()
    with pytest.raises(ValueError, match="must be divisible by every segment length, got 16"):
        make(SEGMENTS, RATES)(x[:, :24], x[:, :24], x[:, :24])
    with pytest.raises(ValueError, match=r"num_heads \(2\) must be >= num_groups \(3\)"):
        make(SEGMENTS, RATES)(*torch.zeros(3, 1, 32, 2, 4))


def test_dropout_and_options_without_effect() -> None:
    module = make([64], [2], 0.5, 3, None)
    assert (module.ring_size, module.ring_group, module.state_dict()) == (3, None, {})
    ones = torch.ones(1, 64, 1, 4)
    torch.manual_seed(0)
    assert set(module(ones, ones, ones)[:, ::2].unique().tolist()) == {0.0, 4.0}
    torch.testing.assert_close(
        module.eval()(ones, ones, ones)[:, ::2], ones[:, ::2], rtol=0, atol=0
    )
