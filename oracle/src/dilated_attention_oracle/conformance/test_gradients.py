"""Contract: dq, dk and dv are the exact gradients, that of lse included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import (
    GRADIENTS,
    features,
    judge,
    require,
    run,
    supported_dtypes,
)
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.strategies import cases


class TestGradients:
    """Gradients in one process."""

    @settings(deadline=None)
    @given(data=st.data())
    def test_equal_the_oracle(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """Any pattern, length, option and dtype that is supported."""
        require(attention_implementation, "gradients")
        drawn = cases(
            features=features(attention_implementation),
            dtypes=supported_dtypes(attention_implementation),
        )
        case = data.draw(drawn, label="case")
        judge(attention_implementation, case, run(attention_implementation, case))

    def test_lse_is_differentiable(self, attention_implementation: Implementation) -> None:
        """With dout = 0 all of the gradient comes from lse."""
        require(attention_implementation, "gradients", "lse_gradient")
        case = fixed_case(attention_implementation, ((4, 1), (8, 2)), n=8)
        case = replace(case, dout=np.zeros(case.dout.shape))
        actual = run(attention_implementation, case)
        judge(attention_implementation, case, actual)
        assert np.abs(actual.dq).max() > 0.0

    def test_rows_that_see_nothing_have_none(
        self, attention_implementation: Implementation
    ) -> None:
        """A token that no branch selects gets gradients of exactly 0, never NaN."""
        require(attention_implementation, "gradients")
        case = fixed_case(attention_implementation, ((2, 5),), n=5)
        actual = run(attention_implementation, case)
        judge(attention_implementation, case, actual)
        empty = np.isneginf(np.asarray(actual.lse, dtype=np.float64))
        assert empty.any()
        for name in GRADIENTS:
            assert (np.asarray(getattr(actual, name), dtype=np.float64)[empty] == 0.0).all(), name
