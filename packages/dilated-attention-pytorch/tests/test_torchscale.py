"""torchscale mode equals microsoft/torchscale's own numbers, on one device and over rings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, check
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
)

# One committed copy serves the oracle's tests and these.
VECTORS = Path(__file__).parents[3] / "oracle" / "tests" / "data" / "torchscale_vectors.npz"
CASES = 28
GRADIENTS = ("dq", "dk", "dv")
Arrays = dict[str, np.ndarray[Any, Any]]


def vector(number: int) -> Arrays:
    prefix = f"case{number:02d}/"
    with np.load(VECTORS) as stored:
        names = [name for name in stored.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): stored[name] for name in names}


def pattern_of(case: Arrays) -> DilationPattern:
    return DilationPattern.torchscale(
        case["segment_lengths"].tolist(),
        case["dilation_rates"].tolist(),
        phantom_keys=True,
        detach_mix=True,
        shift_rows=True,
    )


def attend(
    case: Arrays, pattern: DilationPattern, *, double: bool = True, **ring: Any
) -> tuple[Arrays, torch.Tensor]:
    dtype = torch.float64 if double else torch.float32
    q, k, v = (torch.tensor(case[x], dtype=dtype, requires_grad=True) for x in "qkv")
    options: dict[str, Any] = {"is_causal": bool(case["is_causal"]), "return_lse": True}
    if ring:
        out, lse = ring_dilated_attention(q, k, v, pattern, **options, **ring)
    else:
        out, lse = dilated_attention(q, k, v, pattern, **options)
    gradients = torch.autograd.grad(out, (q, k, v), torch.tensor(case["dout"], dtype=dtype))
    named = zip(("out", *GRADIENTS), (out, *gradients), strict=True)
    return {name: x.detach().double().numpy() for name, x in named}, lse


def equals_torchscale(number: int, **ring: Any) -> None:
    """out, dq, dk, dv in float64 within the tolerance of the same operator, run naively."""
    case = vector(number)
    branches = zip(case["segment_lengths"].tolist(), case["dilation_rates"].tolist(), strict=True)
    spec = Pattern(
        tuple(branches), "torchscale", phantom_keys=True, detach_mix=True, shift_rows=True
    )
    arguments: tuple[Any, ...] = (*(case[x].astype(np.float64) for x in "qkv"), spec)
    options: dict[str, Any] = {
        "dout": case["dout"].astype(np.float64),
        "is_causal": bool(case["is_causal"]),
    }
    plain, terms = naive(*arguments, **options), reference(*arguments, **options).terms
    assert terms is not None
    found, lse = attend(case, pattern_of(case), **ring)
    for name in ("out", *GRADIENTS):
        sizes = getattr(terms, name)
        check(name, found[name], case[name], getattr(plain, name), "float64", sizes)
    assert not lse.requires_grad, "a detached mix returns a detached lse"


def test_there_are_vectors_for_every_case() -> None:
    with np.load(VECTORS) as stored:
        assert len({name.split("/")[0] for name in stored.files}) == CASES


def short_cases() -> list[int]:
    """The eight cases with the shortest sequences, rings of which take a moment only."""
    with np.load(VECTORS) as stored:
        lengths = [stored[f"case{number:02d}/q"].shape[1] for number in range(CASES)]
    return [int(number) for number in np.argsort(lengths, kind="stable")[:8]]


@pytest.mark.parametrize("number", range(CASES))
def test_one_device(number: int) -> None:
    equals_torchscale(number)


@pytest.mark.parametrize("layout", ["sharded", "replicated"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("number", short_cases())
def test_rings(number: int, size: int, layout: str) -> None:
    equals_torchscale(number, ring_size=size, layout=layout)


@pytest.mark.parametrize("number", short_cases()[::3])
def test_zigzag_and_deterministic(number: int) -> None:
    equals_torchscale(number, ring_size=3, order="zigzag")
    equals_torchscale(number, ring_size=3, deterministic=True)


def test_each_switch_changes_the_numbers() -> None:
    """A switch that did nothing would pass unseen where the others carry the result."""
    number = next(n for n in range(CASES) if _is_shifted(vector(n)))
    case = vector(number)
    whole, _ = attend(case, pattern_of(case))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"phantom_keys": False, "shift_rows": False}, "out"),
        ({"shift_rows": False}, "out"),
        ({"detach_mix": False}, "dq"),
    ]
    for switches, changed in changes:
        found, _ = attend(case, replace(pattern_of(case), **switches))
        assert np.abs(found[changed] - whole[changed]).max() > 1e-3, switches


def _is_shifted(case: Arrays) -> bool:
    """Some branch has several segments whose length r does not divide."""
    n = case["q"].shape[1]
    branches = zip(case["segment_lengths"].tolist(), case["dilation_rates"].tolist(), strict=True)
    return not bool(case["is_causal"]) and any(w % r and w < n for w, r in branches)


@pytest.mark.parametrize("name", ["gigapath", "gigapath-panda", "longvit"])
def test_presets_are_as_trained_and_exact_on_request(name: str) -> None:
    trained, exact = DilationPattern.preset(name), DilationPattern.preset(name, exact=True)
    assert (trained.phantom_keys, trained.detach_mix, trained.shift_rows) == (True, True, True)
    assert exact.exact
    assert not trained.exact
    assert exact.branches == trained.branches
    assert exact.rule == trained.rule == "torchscale"
