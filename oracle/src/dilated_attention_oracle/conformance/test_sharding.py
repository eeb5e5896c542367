"""Contract: a ring of any size, split and order gives the result of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle.conformance.fixed import fixed_case
from dilated_attention_oracle.conformance.judge import (
    features,
    judge,
    require,
    ring_options,
    run,
    supported_dtypes,
)
from dilated_attention_oracle.conformance.protocol import Implementation
from dilated_attention_oracle.strategies import Case, cases, partitions
from dilated_attention_oracle.traffic import rows_needed

BRANCHES = ((4, 1), (16, 4))


def drawn_ring(implementation: Implementation, data: st.DataObject) -> tuple[Case, dict[str, Any]]:
    """A case and the ring arguments for a drawn partition of its rows."""
    without = ("torchscale_switches",)
    drawn = cases(
        features=features(implementation, without),
        dtypes=supported_dtypes(implementation),
        max_length=24,
        max_heads=4,
    )
    case = data.draw(drawn, label="case")
    shards = data.draw(partitions(case.length), label="shards")
    return case, ring_options(implementation, shards)


class TestSharding:
    """Simulated rings."""

    @settings(deadline=None)
    @given(data=st.data())
    def test_forward_equals_the_oracle(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """1 to 8 ranks, uneven and empty shards, any order."""
        require(attention_implementation, "ring")
        case, ring = drawn_ring(attention_implementation, data)
        actual = run(attention_implementation, case, gradients=False, **ring)
        judge(attention_implementation, case, actual, gradients=False)

    @settings(deadline=None)
    @given(data=st.data())
    def test_gradients_equal_the_oracle(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """1 to 8 ranks, uneven and empty shards, any order."""
        require(attention_implementation, "ring", "gradients")
        case, ring = drawn_ring(attention_implementation, data)
        judge(attention_implementation, case, run(attention_implementation, case, **ring))

    @settings(deadline=None)
    @given(data=st.data())
    def test_replicated_layout_equals_the_oracle(
        self, attention_implementation: Implementation, data: st.DataObject
    ) -> None:
        """Full queries on every rank, keys and values divided."""
        require(attention_implementation, "ring", "replicated")
        case, ring = drawn_ring(attention_implementation, data)
        actual = run(attention_implementation, case, layout="replicated", **ring)
        judge(attention_implementation, case, actual)

    @pytest.mark.parametrize("ranks", [2, 3, 5])
    def test_each_rank_counts_its_own_keys_once(
        self, attention_implementation: Implementation, ranks: int
    ) -> None:
        """Keys of the own shard counted twice raise lse wherever others are seen, too."""
        require(attention_implementation, "ring")
        case = fixed_case(attention_implementation, BRANCHES, n=13)
        actual = run(attention_implementation, case, gradients=False, ring_size=ranks)
        judge(attention_implementation, case, actual, gradients=False)

    @pytest.mark.parametrize("ranks", [2, 3, 5])
    def test_backward_uses_the_rows_of_its_step(
        self, attention_implementation: Implementation, ranks: int
    ) -> None:
        """A receive buffer that still holds the step before shows in dq."""
        require(attention_implementation, "ring", "gradients")
        case = fixed_case(attention_implementation, BRANCHES, n=15)
        actual = run(attention_implementation, case, ring_size=ranks)
        judge(attention_implementation, case, actual)

    @pytest.mark.parametrize("ranks", [1, 2, 4])
    def test_dropout_is_that_of_one_process(
        self, attention_implementation: Implementation, ranks: int
    ) -> None:
        """The same entries are dropped for every ring size, forward and backward."""
        require(attention_implementation, "ring", "dropout")
        case = fixed_case(attention_implementation, BRANCHES, n=16, dropout_p=0.4, seed=2**40 + 17)
        actual = run(attention_implementation, case, ring_size=ranks)
        judge(attention_implementation, case, actual)

    @pytest.mark.parametrize("ranks", [3, 8])
    def test_more_ranks_than_rows(
        self, attention_implementation: Implementation, ranks: int
    ) -> None:
        """Ranks without rows neither fail nor add anything."""
        require(attention_implementation, "ring")
        case = fixed_case(attention_implementation, BRANCHES, n=2)
        judge(attention_implementation, case, run(attention_implementation, case, ring_size=ranks))

    @pytest.mark.parametrize("is_causal", [False, True])
    @pytest.mark.parametrize("ranks", [2, 4])
    def test_only_needed_rows_travel(
        self, attention_implementation: Implementation, ranks: int, is_causal: bool
    ) -> None:
        """Each rank gets the rows that some query of it may see, once each, and no others."""
        require(attention_implementation, "ring", "traffic")
        if is_causal:
            require(attention_implementation, "causal")
        case = fixed_case(attention_implementation, BRANCHES, n=32, is_causal=is_causal)
        actual = run(attention_implementation, case, gradients=False, ring_size=ranks)
        judge(attention_implementation, case, actual, gradients=False)
        needed = rows_needed(
            case.pattern,
            np.split(np.arange(case.length), ranks),
            num_heads=case.num_heads,
            num_kv_heads=case.key.shape[2],
            is_causal=is_causal,
        ).sum(axis=1)
        assert actual.rows_received is not None
        assert np.array_equal(actual.rows_received, needed), (
            f"rows received per rank: {actual.rows_received}, needed: {needed}"
        )
