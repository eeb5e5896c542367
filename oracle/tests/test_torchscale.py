"""Against numbers that torchscale's own code computed (data/torchscale_vectors.npz)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dilated_attention_oracle import Pattern, backward, check, forward, term_sizes

VECTORS = Path(__file__).parent / "data" / "torchscale_vectors.npz"
CASES = 28


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    with np.load(VECTORS) as stored:
        return dict(stored)


def load(vectors: dict[str, Any], number: int, *switches: bool) -> tuple[Any, ...]:
    stored = {name: vectors[f"case{number:02d}/{name}"] for name in ("q", "k", "v", "dout")}
    stored |= {name: vectors[f"case{number:02d}/{name}"] for name in ("out", "dq", "dk", "dv")}
    branches = zip(
        vectors[f"case{number:02d}/segment_lengths"].tolist(),
        vectors[f"case{number:02d}/dilation_rates"].tolist(),
        strict=True,
    )
    pattern = Pattern(tuple(branches), "torchscale", None, *switches)
    return stored, pattern, bool(vectors[f"case{number:02d}/is_causal"])


@pytest.mark.parametrize("number", range(CASES))
def test_equals_torchscale(vectors: dict[str, Any], number: int) -> None:
    stored, pattern, is_causal = load(vectors, number, True, True, True)
    q, k, v = (stored[name] for name in "qkv")
    out, _ = forward(q, k, v, pattern, is_causal=is_causal)
    gradients = backward(q, k, v, pattern, stored["dout"], is_causal=is_causal)
    terms = term_sizes(q, k, v, pattern, stored["dout"], is_causal=is_causal)
    for name, actual in zip(("out", "dq", "dk", "dv"), (out, *gradients), strict=True):
        want = stored[name]
        check(name, actual, want, want, "float64", getattr(terms, name))


@pytest.mark.parametrize("off", [0, 1, 2])
def test_every_switch_is_needed(vectors: dict[str, Any], off: int) -> None:
    """With one switch off, some vector no longer fits: none of them is decoration."""
    switches = [position != off for position in range(3)]
    if off == 0:
        switches[2] = False
    differs = []
    for number in range(CASES):
        stored, pattern, is_causal = load(vectors, number, *switches)
        q, k, v = (stored[name] for name in "qkv")
        dq, _, _ = backward(q, k, v, pattern, stored["dout"], is_causal=is_causal)
        differs.append(np.abs(dq - stored["dq"]).max() > 1e-3)
    assert any(differs)


def test_without_switches_it_is_the_exact_operator() -> None:
    generator = np.random.default_rng(0)
    q, k, v = generator.standard_normal((3, 1, 12, 4, 3))
    # Nothing to pad and nothing to shift: n, w and r are multiples, so phantoms change nothing.
    branches = ((4, 2), (12, 4))
    plain = forward(q, k, v, Pattern(branches, "torchscale"))
    padded = forward(q, k, v, Pattern(branches, "torchscale", None, True, True, True))
    for actual, want in zip(padded, plain, strict=True):
        assert np.allclose(actual, want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"cu_seqlens": np.array([0, 12])},
        {"key_mask": np.ones((1, 12), dtype=bool)},
        {"dropout_p": 0.1, "seed": 1},
    ],
)
def test_switches_refuse_what_torchscale_has_not(options: dict[str, Any]) -> None:
    q = np.zeros((1, 12, 4, 3))
    with pytest.raises(ValueError, match="turn the switches off"):
        forward(q, q, q, Pattern(((4, 2),), "torchscale", None, True), **options)


def test_an_lse_of_exactly_zero_counts_as_not_covered() -> None:
    q = np.zeros((1, 3, 1, 2))
    v = np.ones((1, 3, 1, 2))
    for phantom_keys, expected in ((False, (0.0, 1.0)), (True, (-np.inf, 0.0))):
        out, lse = forward(q, q, v, Pattern(((1, 1),), "torchscale", None, phantom_keys))
        assert (lse == expected[0]).all()
        assert (out == expected[1]).all()


def test_a_row_of_one_phantom_alone_is_not_covered() -> None:
    """Where w < r an offset past the segment selects rows that see one phantom, of lse log 1."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 8, 4, 2))
    short, whole = (2, 4), (8, 1)
    mixed = forward(q, k, v, Pattern((short, whole), "torchscale", None, True, False, True))
    alone = forward(q, k, v, Pattern((whole,), "torchscale"))
    for actual, want in zip(mixed, alone, strict=True):
        check("heads 2 and 3", actual[:, :, 2:], want[:, :, 2:], want[:, :, 2:], "float64")


def test_dlse_of_rows_that_see_nothing_is_not_used() -> None:
    generator = np.random.default_rng(0)
    q, k, v, dout = generator.standard_normal((4, 1, 6, 2, 3))
    pattern = Pattern(((6, 2),), "torchscale", None, True)
    _, lse = forward(q, k, v, pattern)
    dlse = np.where(np.isneginf(lse), np.nan, generator.standard_normal(lse.shape))
    assert np.isnan(dlse).any()
    plain = backward(q, k, v, pattern, dout, np.nan_to_num(dlse))
    for actual, want in zip(backward(q, k, v, pattern, dout, dlse), plain, strict=True):
        assert np.array_equal(actual, want)


def test_a_bad_dlse_stays_with_the_keys_that_its_row_sees() -> None:
    generator = np.random.default_rng(0)
    q, k, v, dout = generator.standard_normal((4, 1, 6, 1, 3))
    pattern = Pattern(((3, 1),), "torchscale", None, True)
    dlse = np.zeros((1, 6, 1))
    dlse[0, 5] = np.nan
    _, dk, _ = backward(q, k, v, pattern, dout, dlse)
    assert np.isfinite(dk[0, :3]).all()
    assert np.isnan(dk[0, 3:]).all()
    # Rows of the sentinel see keys, but are not covered.
    q = np.zeros((1, 6, 1, 3))
    single = Pattern(((1, 1),), "torchscale", None, True)
    for gradient in backward(q, k, v, single, dout, np.full((1, 6, 1), np.nan)):
        assert (gradient == 0.0).all()
