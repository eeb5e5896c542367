from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, check, check_lse, check_result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.precision import DTYPES, EPS, lse_dtype
from dilated_attention_oracle.tolerance import C, measure

WANT = np.array([1.0, -2.0, 0.5, 0.5])
PLAIN = WANT + np.array([0.0, 1e-3, -2e-3, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_budget_is_the_formula(dtype: str) -> None:
    report = measure("x", WANT, WANT, PLAIN, dtype)
    assert report.budget_max == pytest.approx(2 * 2e-3 + C[dtype] * EPS[dtype] * 2.0, rel=1e-12)
    assert report.budget_mean == pytest.approx(2 * 0.75e-3 + C[dtype] * EPS[dtype] * 1.0, rel=1e-12)
    sized = measure("x", WANT, WANT, PLAIN, dtype, terms=np.full(4, 3.0))
    assert sized.budget_max == pytest.approx(2 * 2e-3 + C[dtype] * EPS[dtype] * 3.0, rel=1e-12)
    assert (report.share_max, report.share_mean, report.passed) == (0.0, 0.0, True)


def test_epsilons_are_those_of_torch() -> None:
    assert {dtype: torch.finfo(getattr(torch, dtype)).eps for dtype in DTYPES} == EPS


def test_errors_up_to_the_budget_pass() -> None:
    budget = measure("x", WANT, WANT, PLAIN, "float32").budget_max
    one = np.array([0.0, 1.0, 0.0, 0.0])
    assert check("x", WANT + 0.99 * budget * one, WANT, PLAIN, "float32").share <= 1.0
    with pytest.raises(AssertionError, match=r"worst at \(1,\)"):
        check("x", WANT + 1.01 * budget * one, WANT, PLAIN, "float32")


def test_mean_is_judged_too() -> None:
    report = measure("x", WANT, WANT, PLAIN, "float32")
    assert report.budget_mean < report.budget_max
    with pytest.raises(AssertionError, match="mean error"):
        check("x", WANT + 0.9 * report.budget_max, WANT, PLAIN, "float32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_never_passes(bad: float) -> None:
    with pytest.raises(AssertionError, match="worst at"):
        check("x", [1.0, bad, 0.5, 0.5], WANT, PLAIN, "bfloat16")
    with pytest.raises(AssertionError, match="lse"):
        check_lse([1.0, bad, 0.5, 0.5], WANT, PLAIN, "bfloat16")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_budget_without_a_finite_naive_run(bad: float) -> None:
    with pytest.raises(ValueError, match="no budget"):
        check("x", WANT, WANT, [1.0, bad, 0.5, 0.5], "float32")
    with pytest.raises(ValueError, match="no budget"):
        check("x", WANT, [1.0, bad, 0.5, 0.5], WANT, "float32")
    with pytest.raises(ValueError, match="finite terms"):
        check("x", WANT, WANT, WANT, "float32", [1.0, bad, 1.0, 1.0])


def test_empty_rows_of_lse_must_match() -> None:
    want = np.array([0.0, -np.inf, 2.0])
    assert check_lse(want, want, want, "float16").dtype == "float32"
    for wrong in ([-np.inf, -np.inf, 2.0], [0.0, -1e30, 2.0]):
        with pytest.raises(AssertionError, match="-inf on one side only"):
            check_lse(wrong, want, want, "float16")
    with pytest.raises(ValueError, match="naive"):
        check_lse(want, want, np.zeros(3), "float16")


def test_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(AssertionError, match="shape"):
        check("x", WANT[:3], WANT, PLAIN, "float32")
    with pytest.raises(AssertionError, match="shape"):
        check_lse(WANT[:3], WANT, PLAIN, "float32")
    with pytest.raises(ValueError, match="shape"):
        measure("x", WANT[:3], WANT, PLAIN, "float32")
    with pytest.raises(ValueError, match="shape"):
        measure("x", WANT, WANT, PLAIN[:3], "float32")
    with pytest.raises(ValueError, match="dtype"):
        check("x", WANT, WANT, PLAIN, "float8")


def test_nothing_is_within_any_budget() -> None:
    empty = np.zeros((0, 3))
    assert check("x", empty, empty, empty, "float64").passed


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_that_of_torch(dtype: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal(2000) * 10.0 ** generator.integers(-6, 5, 2000)
    values = np.concatenate(
        [values, [0.0, -0.0, np.inf, -np.inf, np.nan, 1 + 2**-8, 1 + 3 * 2**-8]]
    )
    # Through float32 first, as both do for bfloat16; float16 is rounded once from float32.
    single = values.astype(np.float32).astype(np.float64) if dtype != "float64" else values
    expected = torch.tensor(single).to(getattr(torch, dtype)).to(torch.float64).numpy()
    assert np.array_equal(round_to(single, dtype), expected, equal_nan=True)
    assert round_to(np.float64(1.5), dtype).shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_naive_run_is_within_its_own_budget(dtype: str) -> None:
    """And half of it at most, since the budget holds the naive error twice."""
    generator = np.random.default_rng(1)
    q, k, v, dout = generator.standard_normal((4, 1, 24, 2, 4))
    dlse = generator.standard_normal((1, 24, 2))
    call: tuple[Any, ...] = (q, k, v, Pattern(((8, 1), (24, 3))), dtype)
    options: dict[str, Any] = {"dout": dout, "dlse": dlse, "is_causal": True}
    plain = naive(*call, **options)
    reports = check_result(plain, reference(*call, **options), plain, dtype)
    assert reports["lse"].dtype == lse_dtype(dtype)
    assert all(0.0 < report.share <= 0.5 for report in reports.values())


def test_a_query_with_one_key_has_a_budget() -> None:
    """Its dq is exactly 0 = 1 - 1: without the sizes of the terms the budget would be 0."""
    q, k, v, dout = np.random.default_rng(2).standard_normal((4, 1, 1, 1, 8))
    call: tuple[Any, ...] = (q, k, v, Pattern(((1, 1),)), "float32")
    want, plain = reference(*call, dout=dout), naive(*call, dout=dout)
    rounding = want._replace(dq=want.dq + 1e-9)
    check_result(rounding, want, plain, "float32")
    with pytest.raises(AssertionError, match="dq"):
        check("dq", rounding.dq, want.dq, plain.dq, "float32")
    with pytest.raises(AssertionError, match="dq"):
        check_result(want._replace(dq=want.dq + 1e-4), want, plain, "float32")
