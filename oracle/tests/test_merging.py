from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import check, merge, merge_partials
from dilated_attention_oracle.strategies import normals

Part = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@st.composite
def parts(draw: st.DrawFn) -> Part:
    out, lse = draw(normals((5, 3))), draw(normals((5,)))
    empty = np.array(draw(st.lists(st.booleans(), min_size=5, max_size=5)))
    return np.where(empty[:, None], 0.0, out), np.where(empty, -np.inf, lse)


def same(a: Part, b: Part) -> None:
    assert np.array_equal(np.isneginf(a[1]), np.isneginf(b[1]))
    seen = ~np.isneginf(a[1])
    check("lse", a[1][seen], b[1][seen], b[1][seen], "float64", np.ones(seen.sum()))
    check("out", a[0], b[0], b[0], "float64", np.ones(a[0].shape))


@given(a=parts())
def test_empty_part_is_the_identity(a: Part) -> None:
    identity = np.zeros((5, 3)), np.full(5, -np.inf)
    same(merge(*a, *identity), a)
    same(merge(*identity, *a), a)


@given(a=parts(), b=parts())
def test_merge_is_commutative(a: Part, b: Part) -> None:
    same(merge(*a, *b), merge(*b, *a))


@given(a=parts(), b=parts(), c=parts())
def test_merge_is_associative(a: Part, b: Part, c: Part) -> None:
    same(merge(*merge(*a, *b), *c), merge(*a, *merge(*b, *c)))
    same(merge_partials([a[0], b[0], c[0]], [a[1], b[1], c[1]]), merge(*merge(*a, *b), *c))


def test_merge_is_the_softmax_over_both_parts() -> None:
    generator = np.random.default_rng(0)
    scores, values = generator.standard_normal((5, 8)), generator.standard_normal((8, 3))

    def part(keys: slice) -> Part:
        weights = np.exp(scores[:, keys])
        return weights @ values[keys] / weights.sum(1, keepdims=True), np.log(weights.sum(1))

    same(merge(*part(slice(0, 3)), *part(slice(3, 8))), part(slice(0, 8)))


def test_empty_part_has_weight_zero_whatever_it_holds() -> None:
    out, lse = merge([[np.nan]], [-np.inf], [[2.0]], [1.0])
    assert (out[0, 0], lse[0]) == (2.0, 1.0)
    out, lse = merge([[np.nan]], [-np.inf], [[np.inf]], [-np.inf])
    assert (out[0, 0], lse[0]) == (0.0, -np.inf)


@pytest.mark.parametrize("lse", [np.nan, np.inf])
def test_bad_lse_propagates(lse: float) -> None:
    out, merged = merge([[1.0]], [lse], [[2.0]], [0.0])
    assert np.isnan(out[0, 0])
    assert np.array_equal(merged[0], lse, equal_nan=True)


def test_nan_in_out_propagates() -> None:
    assert np.isnan(merge([[np.nan]], [0.0], [[2.0]], [0.0])[0][0, 0])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: merge([[1.0]], [0.0], [[1.0, 2.0]], [0.0]), ValueError),
        (lambda: merge([[1.0]], [0.0], [[1.0]], [0.0, 1.0]), ValueError),
        (lambda: merge([[1]], [0.0], [[1.0]], [0.0]), TypeError),
        (lambda: merge_partials([], []), ValueError),
        (lambda: merge_partials([[[1.0]]], []), ValueError),
    ],
)
def test_wrong_parts_raise(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()
