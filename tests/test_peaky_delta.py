"""A softmax from flat to one-hot: what a delta from the rounded out may cost, and does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import peaky_delta

from dilated_attention_oracle import Result
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.inputs import FloatArray
from dilated_attention_oracle.precision import EPS
from dilated_attention_oracle.tolerance import C, check, check_result
from dilated_attention_pytorch import DilationPattern, dilated_attention
from dilated_attention_pytorch.kernels.sdpa import launch
from dilated_attention_pytorch.ring import backward as ring_backward
from dilated_attention_pytorch.ring.lanes import backward_terms

REPORT = peaky_delta.load()
CASES = [(kind, peak) for kind in peaky_delta.INPUTS for peak in (8, 32)]
DTYPES = ("float32", *peaky_delta.DTYPES)
HEAD_DIM = 64


@lru_cache
def _judges(kind: str, dtype: str, peak: int) -> tuple[list[FloatArray], Result, Result]:
    """Inputs, the oracle's result and the naive run's."""
    query, key, value, dout = arrays = peaky_delta.inputs(kind, dtype, HEAD_DIM, peak)
    exact = reference(query, key, value, peaky_delta.PATTERN, dtype, dout=dout)
    return arrays, exact, naive(query, key, value, peaky_delta.PATTERN, dtype, dout=dout)


def _run(arrays: list[FloatArray], dtype: str, backend: str) -> Result:
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype)) for x in arrays)
    query, key, value = inputs = [x.requires_grad_() for x in inputs]
    pattern = DilationPattern.longnet(*zip(*peaky_delta.PATTERN.branches, strict=True))
    out, lse = dilated_attention(query, key, value, pattern, backend=backend, return_lse=True)
    gradients = torch.autograd.grad(out, inputs, dout)
    found = (x.detach().double().numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "peak"), CASES)
def test_the_backends_stay_within_the_budget(
    kind: str, peak: int, dtype: str, backend: str
) -> None:
    arrays, exact, plain = _judges(kind, dtype, peak)
    check_result(_run(arrays, dtype, backend), exact, plain, dtype)


def _spoil(monkeypatch: pytest.MonkeyPatch, backend: str, factor: float) -> None:
    """Plant: out is multiplied before delta is computed from it."""
    if backend == "sdpa":
        piece = launch._backward_piece

        def spoiled(options: Any, dout: Any, out: Any, *others: Any) -> Any:
            return piece(options, dout, out * factor, *others)

        monkeypatch.setattr(launch, "_backward_piece", spoiled)
        return

    def spoiled_terms(dout: Any, dlse: Any, result: Any, *others: Any) -> Any:
        return backward_terms(dout, dlse, replace(result, out=result.out * factor), *others)

    monkeypatch.setattr(ring_backward, "backward_terms", spoiled_terms)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        # As a bfloat16 out would be for float32 inputs; no delta at all.
        ("float32", 1 + EPS["bfloat16"]),
        *((dtype, 0.0) for dtype in DTYPES),
    ],
)
@pytest.mark.parametrize(("kind", "peak"), CASES)
def test_the_budget_rejects_a_wrong_delta(
    kind: str,
    peak: int,
    dtype: str,
    factor: float,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays, exact, plain = _judges(kind, dtype, peak)
    _spoil(monkeypatch, backend, factor)
    found = _run(arrays, dtype, backend)
    for name in peaky_delta.GRADIENTS:
        got, want, naive_one = (getattr(x, name) for x in (found, exact, plain))
        with pytest.raises(AssertionError, match=name):
            check(name, got, want, naive_one, dtype, getattr(exact.terms, name))


@pytest.mark.parametrize(
    ("way", "steps", "dtype"),
    [
        ("rounded", (), "float64"),
        # Twice the digits of float16 are nearly those of float32.
        ("residual", ("out",), "float32"),
        ("float32", ("out",), "float32"),
        ("keys", ("out",), "float64"),
        ("corrected", ("out",), "float64"),
    ],
)
@pytest.mark.parametrize(("kind", "peak"), CASES)
def test_the_arithmetic_is_the_oracles_but_for_the_roundings(
    kind: str, peak: int, way: str, steps: tuple[str, ...], dtype: str
) -> None:
    """What the other ways are for: a rounded out does not harm them."""
    arrays, exact, plain = _judges(kind, "float64", peak)
    found = peaky_delta.gradients(arrays, "float16", way, steps)
    for name in peaky_delta.GRADIENTS:
        want, naive_one = (getattr(x, name) for x in (exact, plain))
        check(name, found[name], want, naive_one, dtype, getattr(exact.terms, name))


def test_the_committed_rows_are_of_every_case() -> None:
    cases = [
        (kind, dtype, head_dim, peak)
        for kind in peaky_delta.INPUTS
        for dtype in peaky_delta.DTYPES
        for head_dim in peaky_delta.HEAD_DIMS
        for peak in peaky_delta.PEAKS
    ]
    fields = ("inputs", "dtype", "head_dim", "peak")
    assert [tuple(row[field] for field in fields) for row in REPORT["rows"]] == cases
    for row in REPORT["rows"]:
        assert list(row["ways"]) == list(peaky_delta.WAYS)
        assert list(row["steps"]) == list(peaky_delta.STEPS)


@pytest.mark.parametrize("row", [REPORT["rows"][3], REPORT["rows"][-1]])
def test_a_row_measured_again_is_the_committed_one(row: dict[str, Any]) -> None:
    again = peaky_delta.row(row["inputs"], row["dtype"], row["head_dim"], row["peak"])

    def leaves(entry: Any) -> list[Any]:
        return (
            [x for y in entry.values() for x in leaves(y)] if isinstance(entry, dict) else [entry]
        )

    for found, committed in zip(leaves(again), leaves(row), strict=True):
        if isinstance(committed, float):
            # Another order of summation turns few roundings the other way.
            assert math.isclose(found, committed, rel_tol=EPS["bfloat16"])
        else:
            assert found == committed


def test_the_shares_are_those_that_the_page_decides_by() -> None:
    """No share reaches 1, and one rounding alone takes no more than the quarter derived there."""
    for row in REPORT["rows"]:
        for name in peaky_delta.GRADIENTS:
            assert all(way[name]["share_without_naive"] < 1 for way in row["ways"].values())
            steps = [step[name]["share_without_naive"] for step in row["steps"].values()]
            # u max(size) over c eps max(size), with u = eps / 2.
            assert max(steps) <= 0.5 / C[row["dtype"]]


def test_the_page_is_that_of_the_results() -> None:
    page = peaky_delta.PAGE.read_text(encoding="utf-8")
    assert peaky_delta.render(page, REPORT) == page, "run python -m benchmarks.peaky_delta"
    for path in (("ways", "rounded", "dq", "share"), ("steps", "out", "dq", "error")):
        other = json.loads(json.dumps(REPORT))
        *parents, last = path
        entry = other["rows"][0]
        for step in parents:
            entry = entry[step]
        entry[last] += 0.01
        assert peaky_delta.render(page, other) != page
    with pytest.raises(ValueError, match="the page needs one <!-- delta-by-way -->"):
        peaky_delta.render(page.replace("<!-- delta-by-way -->", ""), REPORT)


def test_the_queries_make_the_softmax_one_hot() -> None:
    largest = [row["median_of_largest_p"] for row in REPORT["rows"][: len(peaky_delta.PEAKS)]]
    assert np.all(np.diff(largest) > 0)
    assert largest[0] < 0.5 < 0.99 < largest[-1]
