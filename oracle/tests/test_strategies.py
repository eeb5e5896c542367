from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern, forward
from dilated_attention_oracle import strategies as drawn
from dilated_attention_oracle.strategies import Case

QUICK = settings(
    max_examples=2000,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def some_branch(test: Callable[[int, int, int], bool]) -> Callable[[Case], bool]:
    return lambda case: any(test(w, r, case.length) for w, r in case.pattern.branches)


EDGES: dict[str, Callable[[Case], bool]] = {
    "n = 1": lambda case: case.length == 1,
    "ragged tail": some_branch(lambda w, r, n: n % w != 0 and w < n),
    "r > w": some_branch(lambda w, r, n: r > w),
    "w > n": some_branch(lambda w, r, n: w > n),
    "r not dividing w": some_branch(lambda w, r, n: w % r != 0 and w > r),
    "H not divisible by r": lambda case: any(case.num_heads % r for _, r in case.pattern.branches),
    "masked row": lambda case: case.key_mask is not None and not case.key_mask.any(axis=1).all(),
    "empty document": lambda case: case.cu_seqlens is not None and 0 in np.diff(case.cu_seqlens),
    "grouped query": lambda case: case.key.shape[2] < case.num_heads,
    "everything dropped": lambda case: case.dropout_p == 1.0,
    "shifted rows": lambda case: case.pattern.shift_rows,
    "absent head": lambda case: None in (case.pattern.table or ((),))[0],
    "bfloat16": lambda case: case.dtype == "bfloat16",
}


@pytest.mark.parametrize("edge", EDGES.values(), ids=list(EDGES))
def test_edges_are_reached(edge: Callable[[Any], bool]) -> None:
    find(drawn.cases(), edge, settings=QUICK)


@pytest.mark.parametrize(
    "edge",
    [
        lambda shards: len(shards) > 4,
        lambda shards: len(shards) > 1 and any(len(shard) == 0 for shard in shards),
        lambda shards: len({len(shard) for shard in shards}) > 2,
        lambda shards: any((np.diff(shard) < 0).any() for shard in shards),
    ],
    ids=["R > n", "empty shard", "uneven", "permuted"],
)
def test_edges_of_partitions_are_reached(edge: Callable[[Any], bool]) -> None:
    find(drawn.partitions(4), edge, settings=QUICK)


@given(case=drawn.cases())
def test_every_case_is_a_legal_call(case: Case) -> None:
    out, lse = forward(*case.tensors, case.pattern, **case.options)
    assert out.shape == case.dout.shape
    assert lse.shape == case.dlse.shape
    assert 1 <= case.length <= 48
    assert case.num_heads <= 6
    assert case.query.shape[3] <= 8
    assert repr(case).startswith("Case(query=")


@given(case=drawn.cases(features={"head_groups"}, dtypes=["float16"], max_length=5))
def test_nothing_else_than_allowed_is_drawn(case: Case) -> None:
    assert case.pattern.rule == "head_groups"
    assert case.dtype == "float16"
    assert case.key.shape[2] == case.num_heads
    assert case.options == {
        "is_causal": False,
        "scale": None,
        "key_mask": None,
        "cu_seqlens": None,
        "dropout_p": 0.0,
        "seed": None,
    }


@given(data=st.data(), n=st.integers(0, 20))
def test_partitions_hold_every_position_once(data: st.DataObject, n: int) -> None:
    shards = data.draw(drawn.partitions(n))
    assert 1 <= len(shards) <= 8
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(n))


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: drawn.lengths(0),
        lambda: drawn.head_counts(2, min_heads=3),
        lambda: drawn.branches(0),
        lambda: drawn.patterns(4, 0),
        lambda: drawn.patterns(4, 2, features={"causal"}),
        lambda: drawn.patterns(4, 2, features={"casual"}),
        lambda: drawn.dtypes(["float8"]),
        lambda: drawn.dtypes([]),
        lambda: drawn.normals((-1,)),
        lambda: drawn.key_masks(1, -1),
        lambda: drawn.boundaries(-1),
        lambda: drawn.boundaries(3, 0),
        lambda: drawn.shard_lengths(3, max_ranks=0),
        lambda: drawn.partitions(3, orders=("spiral",)),
        lambda: drawn.cases(features={"casual"}),
        lambda: drawn.cases(max_width=0),
    ],
)
def test_wrong_arguments_raise(strategy: Callable[[], st.SearchStrategy[Any]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        find(strategy(), lambda _: True, settings=QUICK)


def test_patterns_fit_the_heads() -> None:
    @given(pattern=drawn.patterns(9, 2))
    def check(pattern: Pattern) -> None:
        assert len(pattern.offsets(2)[0]) == 2

    check()
