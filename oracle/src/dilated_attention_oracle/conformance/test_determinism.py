"""Contract: ``deterministic=True`` gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import GRADIENTS, judge, require, run
from dilated_attention_oracle.conformance.protocol import Implementation

BRANCHES = ((4, 1), (16, 2))


class TestDeterminism:
    """Bitwise agreement."""

    def test_two_runs_agree_in_every_bit(self, attention_implementation: Implementation) -> None:
        """Out, lse and gradients of two calls."""
        require(attention_implementation, "deterministic")
        case = fixed_case(attention_implementation, BRANCHES, n=21)
        first, second = (run(attention_implementation, case, deterministic=True) for _ in range(2))
        judge(attention_implementation, case, first)
        names = ["out", "lse"]
        if "gradients" in attention_implementation.supports:
            names += GRADIENTS
        for name in names:
            assert np.array_equal(getattr(first, name), getattr(second, name)), name

    @pytest.mark.parametrize("ranks", [2, 3, 8])
    def test_ring_size_changes_no_bit(
        self, attention_implementation: Implementation, ranks: int
    ) -> None:
        """Out and lse of sharded, contiguous rings equal those of one rank."""
        require(attention_implementation, "deterministic", "ring")
        case = fixed_case(attention_implementation, BRANCHES, n=21)
        whole, ring = (
            run(attention_implementation, case, gradients=False, deterministic=True, ring_size=size)
            for size in (1, ranks)
        )
        assert np.array_equal(whole.out, ring.out)
        assert np.array_equal(whole.lse, ring.lse)
