from __future__ import annotations

from typing import Any

import pytest

from dilated_attention_oracle import Pattern

BRANCHES = ((4, 1), (8, 2), (16, 4))


@pytest.mark.parametrize(
    ("rule", "heads", "offsets"),
    [
        ("longnet", 5, ((0, 0, 0, 0, 0), (0, 1, 0, 1, 0), (0, 1, 2, 3, 0))),
        ("torchscale", 5, ((0, 0, 0, 0, 0), (0, 0, 0, 1, 1), (0, 0, 1, 1, 2))),
        (
            "head_groups",
            5,
            ((0, 0, None, None, None), (None, None, 1, 1, None), (None, None, None, None, 2)),
        ),
        ("head_groups", 3, ((0, None, None), (None, 1, None), (None, None, 2))),
    ],
)
def test_offsets_are_those_of_the_rule(rule: str, heads: int, offsets: Any) -> None:
    assert Pattern(BRANCHES, rule).offsets(heads) == offsets


@pytest.mark.parametrize("rule", ["longnet", "torchscale"])
def test_offsets_stay_below_the_rate(rule: str) -> None:
    for rate in range(1, 9):
        for heads in range(1, 18):
            (row,) = Pattern(((4, rate),), rule).offsets(heads)
            assert all(o is not None and 0 <= o < rate for o in row)


def test_table_is_returned_as_given() -> None:
    table = ((0, None), (1, 0), (None, 3))
    assert Pattern(BRANCHES, "table", table).offsets(2) == table


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"branches": ()}, ValueError),
        ({"branches": ((0, 1),)}, ValueError),
        ({"branches": ((4, 0),)}, ValueError),
        ({"branches": ((4.0, 1),)}, TypeError),
        ({"branches": ((4, True),)}, TypeError),
        ({"rule": "cyclic"}, ValueError),
        ({"rule": "table"}, ValueError),
        ({"table": ((0,), (0,), (0,))}, ValueError),
        ({"rule": "table", "table": ((0,),)}, ValueError),
        ({"rule": "table", "table": ((0,), (0, 1), (0,))}, ValueError),
        ({"rule": "table", "table": ((0,), (2,), (0,))}, ValueError),
        ({"rule": "table", "table": ((0,), (0.0,), (0,))}, TypeError),
        ({"phantom_keys": True}, ValueError),
        ({"rule": "torchscale", "shift_rows": True}, ValueError),
    ],
)
def test_wrong_patterns_raise(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Pattern(**{"branches": BRANCHES, **arguments})


@pytest.mark.parametrize(
    ("pattern", "heads"),
    [
        (Pattern(BRANCHES, "head_groups"), 2),
        (Pattern(BRANCHES, "table", ((0,), (0,), (0,))), 2),
        (Pattern(BRANCHES), 0),
    ],
)
def test_head_counts_that_do_not_fit_raise(pattern: Pattern, heads: int) -> None:
    with pytest.raises(ValueError, match="head"):
        pattern.offsets(heads)
