"""Contract: out and lse are those of one softmax over the multiset of seen keys."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import features, judge, run, supported_dtypes
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.strategies import cases


class TestForward:
    """Out and lse in one process."""

    @settings(deadline=None)
    @given(data=st.data())
    def test_equals_the_oracle(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """Any pattern, length, option and dtype that is supported."""
        drawn = cases(
            features=features(attention_implementation),
            dtypes=supported_dtypes(attention_implementation),
        )
        case = data.draw(drawn, label="case")
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_short_segment_is_not_padded(self, attention_implementation: Implementation) -> None:
        """A padded key that is not masked would add exp(0) to every sum of a short segment."""
        case = fixed_case(attention_implementation, ((4, 3),), n=6)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_every_residue_selects_its_own_tokens(
        self, attention_implementation: Implementation
    ) -> None:
        """Every head of a dilated branch has the offset that the rule gives it."""
        case = fixed_case(attention_implementation, ((9, 3),), n=9)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_last_segment_is_attended(self, attention_implementation: Implementation) -> None:
        """The last segment counts, though it is short."""
        case = fixed_case(attention_implementation, ((4, 1),), n=10)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_last_token_of_an_odd_length_is_attended(
        self, attention_implementation: Implementation
    ) -> None:
        """The token that a division into equal parts leaves over counts."""
        case = fixed_case(attention_implementation, ((7, 1),), n=7)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_branches_are_mixed_by_their_denominators(
        self, attention_implementation: Implementation
    ) -> None:
        """Branches of very different weight: each counts by its share of the softmax."""
        case = fixed_case(attention_implementation, ((2, 1), (16, 1), (16, 2)), n=16)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)

    def test_rows_that_see_nothing_are_zero(self, attention_implementation: Implementation) -> None:
        """Where ``r > w`` some tokens are selected by no branch: out 0 and lse -inf, never NaN."""
        case = fixed_case(attention_implementation, ((2, 5),), n=5)
        actual = run(attention_implementation, case, gradients=False)
        judge(attention_implementation, case, actual, gradients=False)
        empty = np.isneginf(np.asarray(actual.lse, dtype=np.float64))
        assert empty.any()
        assert (np.asarray(actual.out, dtype=np.float64)[empty] == 0.0).all()
