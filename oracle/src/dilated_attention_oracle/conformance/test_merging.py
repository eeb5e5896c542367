"""Contract: (out, lse) over parts of the keys merge to the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import (
    expected,
    features,
    judge,
    require,
    run,
    supported_dtypes,
)
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.merging import merge
from dilated_attention_oracle.strategies import Case, cases, key_masks
from dilated_attention_oracle.tolerance import measure


class TestMerging:
    """Partial results, made by masking keys."""

    @settings(deadline=None)
    @given(data=st.data())
    def test_parts_merge_to_the_whole(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """Out and lse over a set of keys and over the rest merge to those over all keys."""
        require(attention_implementation, "key_mask")
        excluded = ("key_mask", "dropout", "torchscale_switches")
        drawn = cases(
            features=features(attention_implementation, excluded),
            dtypes=supported_dtypes(attention_implementation)[:1],
            max_length=24,
        )
        case = data.draw(drawn, label="case")
        mask = data.draw(key_masks(case.query.shape[0], case.length), label="first part")
        parts = [replace(case, key_mask=chosen) for chosen in (mask, ~mask)]
        results = [run(attention_implementation, part, gradients=False) for part in parts]
        merged = merge(results[0].out, results[0].lse, results[1].out, results[1].lse)
        want, _ = expected(attention_implementation, case)
        assert np.array_equal(np.isneginf(merged[1]), np.isneginf(want.lse))
        seen = ~np.isneginf(want.lse)
        # The merge is exact; each part may be off by its own budget.
        allowed = sum(_budget(attention_implementation, part) for part in (*parts, case))
        assert np.abs(merged[0] - want.out).max(initial=0.0) <= allowed
        assert np.abs(merged[1][seen] - want.lse[seen]).max(initial=0.0) <= allowed

    def test_empty_part_is_the_identity(self, attention_implementation: Implementation) -> None:
        """With every key masked, out is exactly 0 and lse exactly -inf: nothing is NaN."""
        require(attention_implementation, "key_mask")
        mask = np.zeros((1, 6), dtype=np.bool_)
        case = fixed_case(attention_implementation, ((4, 1), (8, 2)), n=6, key_mask=mask)
        actual = run(attention_implementation, case)
        assert (np.asarray(actual.out, dtype=np.float64) == 0.0).all()
        assert np.isneginf(np.asarray(actual.lse, dtype=np.float64)).all()
        judge(attention_implementation, case, actual)

    def test_a_branch_twice_counts_twice(self, attention_implementation: Implementation) -> None:
        """Keys that two branches share count twice: lse grows by log 2, out stays."""
        case = fixed_case(attention_implementation, ((4, 1), (4, 1)), n=9)
        if case.pattern.rule == "head_groups":
            pytest.skip("no head takes part in two branches")
        table = case.pattern.table
        once = replace(case.pattern, branches=((4, 1),), table=None if table is None else table[:1])
        twice = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, twice, gradients=False)
        single = run(attention_implementation, replace(case, pattern=once), gradients=False)
        allowed = 3 * _budget(attention_implementation, case)
        assert np.abs(np.subtract(twice.lse, single.lse) - np.log(2.0)).max() <= allowed


def _budget(implementation: Implementation, case: Case) -> float:
    """The largest error that out or lse of the case may have."""
    want, plain = expected(implementation, case)
    assert want.terms is not None
    seen = ~np.isneginf(want.lse)
    lse = (want.lse[seen], want.lse[seen], plain.lse[seen])
    reports = (
        measure("out", want.out, want.out, plain.out, case.dtype, want.terms.out),
        measure("lse", *lse, case.dtype, want.terms.lse[seen]),
    )
    return max(report.budget_max for report in reports)
