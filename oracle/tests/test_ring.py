from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle import (
    Pattern,
    Result,
    check_result,
    ring_backward,
    ring_forward,
    rows_needed,
)
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.strategies import FEATURES, Case, cases, partitions

ONES = np.ones((1, 6, 2, 3))
PATTERN = Pattern(((4, 2),))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ring_equals_the_dense_operator(data: st.DataObject) -> None:
    drawn = cases(
        features=set(FEATURES) - {"torchscale_switches"},
        dtypes=["float64"],
        max_length=20,
        max_heads=4,
    )
    case: Case = data.draw(drawn)
    shards = data.draw(partitions(case.length))
    layout = data.draw(st.sampled_from(["sharded", "replicated"]))
    call = (*case.tensors, case.pattern, shards)
    options = {"layout": layout, **case.options}
    parts = ring_forward(*call, **options)
    gradients = ring_backward(*call, dout=case.dout, dlse=case.dlse, **options)

    whole = [np.full(x.shape, np.nan) for x in (case.query, case.dlse, *case.tensors)]
    for own, (out, lse), (dq, dk, dv) in zip(shards, parts, gradients, strict=True):
        queries = own if layout == "sharded" else np.arange(case.length)
        arrays = (out, lse, dq, dk, dv)
        for target, rows, part in zip(whole, [queries] * 3 + [own] * 2, arrays, strict=True):
            target[:, rows] = part
    arguments: tuple[Any, ...] = (*case.tensors, case.pattern, case.dtype)
    given_too = {"dout": case.dout, "dlse": case.dlse, **case.options}
    check_result(
        Result._make((*whole, None, None)),
        reference(*arguments, **given_too),
        naive(*arguments, **given_too),
        case.dtype,
    )


def test_replicated_ranks_agree() -> None:
    results = ring_forward(
        ONES, ONES, ONES, PATTERN, [[0, 1], [5, 4], [], [2, 3]], layout="replicated"
    )
    for out, lse in results[1:]:
        assert np.array_equal(out, results[0][0])
        assert np.array_equal(lse, results[0][1])


@pytest.mark.parametrize(
    "shards", [[], [[0, 1, 2]], [[0, 1, 2], [2, 3, 4, 5]], [[0, 1, 2, 3, 4, 6]]]
)
def test_shards_that_are_no_partition_raise(shards: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="shards"):
        ring_forward(ONES, ONES, ONES, PATTERN, shards)


def test_unknown_layout_and_switches_raise() -> None:
    shards = [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="layout"):
        ring_forward(ONES, ONES, ONES, PATTERN, shards, layout="scattered")
    switched = Pattern(((4, 2),), "torchscale", None, True)
    with pytest.raises(ValueError, match="exact operator only"):
        ring_forward(ONES, ONES, ONES, switched, shards)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        # Two ranks of four rows; w = 8, r = 2; heads 0 and 1 take even and odd positions.
        ({"num_heads": 2, "num_kv_heads": 2}, [[0, 4], [4, 0]]),
        ({"num_heads": 2, "num_kv_heads": 2, "is_causal": True}, [[0, 0], [4, 0]]),
        ({"num_heads": 2, "num_kv_heads": 1}, [[0, 4], [4, 0]]),
        ({"num_heads": 1, "num_kv_heads": 1}, [[0, 2], [2, 0]]),
        ({"num_heads": 1, "num_kv_heads": 1, "cu_seqlens": [0, 3, 8]}, [[0, 2], [1, 0]]),
    ],
)
def test_rows_needed(options: dict[str, Any], needed: list[list[int]]) -> None:
    shards = [np.arange(4), np.arange(4, 8)]
    assert rows_needed(Pattern(((8, 2),)), shards, **options).tolist() == needed


def test_a_row_shared_by_branches_travels_once() -> None:
    shards = [np.arange(4), np.arange(4, 8)]
    options: dict[str, Any] = {"num_heads": 1, "num_kv_heads": 1}
    once = rows_needed(Pattern(((8, 1),)), shards, **options)
    assert np.array_equal(rows_needed(Pattern(((8, 1), (8, 1), (8, 2))), shards, **options), once)
