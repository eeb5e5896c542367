"""Contract: what a query may not see never reaches it, whatever it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import expected, judge, require, run
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.inputs import BoolArray
from dilated_attention_oracle.results import Result
from dilated_attention_oracle.strategies import Case
from dilated_attention_oracle.tolerance import check, check_lse

BRANCHES = ((4, 1), (16, 2))
POISONS = (np.nan, np.inf, 1e4)


def poisoned(case: Case, rows: BoolArray, poison: float) -> Case:
    """The case with key and value rows ``(b, n)`` filled with a poison."""
    key, value = case.key.copy(), case.value.copy()
    key[rows], value[rows] = poison, poison
    return replace(case, key=key, value=value)


def judge_rows(
    implementation: Implementation,
    case: Case,
    actual: Result,
    rows: BoolArray,
    names: tuple[str, ...] = ("out",),
) -> None:
    """Judge lse and the named results of some rows ``(b, n)`` against the oracle, clean."""
    want, plain = expected(implementation, case)
    assert want.terms is not None
    check_lse(actual.lse[rows], want.lse[rows], plain.lse[rows], case.dtype, want.terms.lse[rows])
    for name in names:
        got, right, simple, terms = (
            getattr(result, name)[rows] for result in (actual, want, plain, want.terms)
        )
        check(name, got, right, simple, case.dtype, terms)


class TestMasking:
    """Key masks, documents, causality."""

    @pytest.mark.parametrize("poison", POISONS)
    def test_masked_keys_never_reach_a_result(
        self, attention_implementation: Implementation, poison: float
    ) -> None:
        """Masked rows filled with NaN, infinity or large numbers change neither out nor dq."""
        require(attention_implementation, "key_mask")
        mask = np.arange(24).reshape(2, 12) % 3 != 0
        case = fixed_case(attention_implementation, BRANCHES, n=12, batch=2, key_mask=mask)
        actual = run(attention_implementation, poisoned(case, ~mask, poison))
        has_gradients = "gradients" in attention_implementation.supports
        everywhere = np.ones(mask.shape, dtype=np.bool_)
        names = ("out", "dq") if has_gradients else ("out",)
        judge_rows(attention_implementation, case, actual, everywhere, names)
        if has_gradients:
            judge_rows(attention_implementation, case, actual, mask, ("dk", "dv"))

    def test_true_means_attend(self, attention_implementation: Implementation) -> None:
        """With a single True, every query that sees a key returns that key's value."""
        require(attention_implementation, "key_mask")
        mask = np.arange(6)[None] == 2
        case = fixed_case(attention_implementation, ((8, 1),), n=6, heads=1, key_mask=mask)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)
        assert np.allclose(actual.out, case.value[:, 2:3], atol=2.0**-5)

    @pytest.mark.parametrize("poison", POISONS)
    def test_other_documents_never_reach_a_result(
        self, attention_implementation: Implementation, poison: float
    ) -> None:
        """The second of three documents filled with poison leaves the others alone."""
        require(attention_implementation, "documents")
        bounds = np.array([0, 5, 9, 9, 13])
        case = fixed_case(attention_implementation, BRANCHES, n=13, cu_seqlens=bounds)
        inside = ((np.arange(13) >= 5) & (np.arange(13) < 9))[None]
        actual = run(attention_implementation, poisoned(case, inside, poison), gradients=False)
        judge_rows(attention_implementation, case, actual, ~inside)

    @pytest.mark.parametrize("cut", [1, 5, 11])
    def test_the_future_never_reaches_a_causal_result(
        self, attention_implementation: Implementation, cut: int
    ) -> None:
        """Large numbers from position ``cut`` on leave every earlier row alone."""
        require(attention_implementation, "causal")
        case = fixed_case(attention_implementation, BRANCHES, n=12, is_causal=True)
        future = (np.arange(12) >= cut)[None]
        actual = run(attention_implementation, poisoned(case, future, 1e4), gradients=False)
        judge_rows(attention_implementation, case, actual, ~future)

    def test_options_act_together(self, attention_implementation: Implementation) -> None:
        """Documents that begin inside a segment, a mask and causality at once."""
        require(attention_implementation, "documents", "causal", "key_mask")
        options: dict[str, Any] = {
            "cu_seqlens": np.array([0, 1, 1, 8, 13]),
            "key_mask": (np.arange(13) % 4 != 1)[None],
        }
        case = fixed_case(attention_implementation, BRANCHES, n=13, is_causal=True, **options)
        judge(attention_implementation, case, run(attention_implementation, case))
