from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern, backward, forward, term_sizes
from dilated_attention_oracle.strategies import FEATURES, Case, cases
from dilated_attention_oracle.tolerance import check

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE, DOUT = RNG.standard_normal((4, 2, 11, 2, 3))
EXACT = set(FEATURES) - {"torchscale_switches", "dropout"}


def equal(actual: Array, expected: Array) -> None:
    """Equal within the float64 budget, with nothing for the naive run."""
    check("array", actual, expected, expected, "float64")


def test_one_dense_branch_is_plain_attention() -> None:
    out, lse = forward(QUERY, KEY, VALUE, Pattern(((11, 1),)))
    scores = np.exp(np.einsum("bphd,bkhd->bhpk", QUERY, KEY) / np.sqrt(3))
    equal(lse, np.log(scores.sum(axis=3)).transpose(0, 2, 1))
    equal(out, np.einsum("bhpk,bkhd->bphd", scores / scores.sum(axis=3, keepdims=True), VALUE))


def test_zero_queries_average_the_multiset() -> None:
    out, lse = forward(np.zeros_like(QUERY), KEY, VALUE, Pattern(((4, 1), (8, 2))))
    # Token 5 of head 1: 4 .. 7 by the first branch, 1, 3, 5, 7 by the second.
    keys = [4, 5, 6, 7, 1, 3, 5, 7]
    equal(lse[:, 5, 1], np.full(2, np.log(8.0)))
    equal(out[:, 5, 1], VALUE[:, keys, 1].mean(axis=1))


def test_branches_mix_by_their_share_of_the_denominator() -> None:
    branches = ((4, 1), (11, 3))
    parts = [forward(QUERY, KEY, VALUE, Pattern((branch,))) for branch in branches]
    out, lse = forward(QUERY, KEY, VALUE, Pattern(branches))
    shares = [np.exp(part_lse - lse)[..., None] for _, part_lse in parts]
    mixed = np.sum([share * part for share, (part, _) in zip(shares, parts, strict=True)], axis=0)
    equal(out, mixed)
    equal(np.sum(shares, axis=0), np.ones_like(shares[0]))


def test_rows_that_see_nothing_are_zero() -> None:
    pattern = Pattern(((2, 5),))
    out, lse = forward(QUERY, KEY, VALUE, pattern)
    selected = np.arange(11) % 2 == np.arange(2)[:, None]
    assert np.array_equal(np.isneginf(lse[0]), ~selected.T)
    assert (out[0][~selected.T] == 0.0).all()
    for gradient in backward(QUERY, KEY, VALUE, pattern, DOUT, np.full(lse.shape, np.nan)):
        assert (gradient[0][~selected.T] == 0.0).all()


def test_documents_are_separate_calls() -> None:
    bounds, pattern = [0, 4, 4, 11], Pattern(((3, 1), (8, 2)))
    q, k, v = (x[:1] for x in (QUERY, KEY, VALUE))
    out, lse = forward(q, k, v, pattern, cu_seqlens=np.array(bounds), is_causal=True)
    for first, last in pairwise(bounds):
        q_doc, k_doc, v_doc = (x[:, first:last] for x in (q, k, v))
        alone = forward(q_doc, k_doc, v_doc, pattern, is_causal=True)
        equal(out[:, first:last], alone[0])
        equal(lse[:, first:last], alone[1])


def test_grouped_query_repeats_key_heads() -> None:
    query, pattern = RNG.standard_normal((2, 11, 4, 3)), Pattern(((4, 1), (11, 3)))
    grouped = forward(query, KEY, VALUE, pattern)
    whole = forward(query, np.repeat(KEY, 2, axis=2), np.repeat(VALUE, 2, axis=2), pattern)
    for actual, expected in zip(grouped, whole, strict=True):
        equal(actual, expected)


def test_dropping_everything_leaves_lse() -> None:
    pattern = Pattern(((4, 1), (8, 2)))
    out, lse = forward(QUERY, KEY, VALUE, pattern, dropout_p=1.0, seed=1)
    assert (out == 0.0).all()
    assert np.array_equal(lse, forward(QUERY, KEY, VALUE, pattern)[1])


@given(data=st.data())
def test_masked_rows_never_reach_a_result(data: st.DataObject) -> None:
    case: Case = data.draw(cases(features=EXACT, max_length=16))
    row = data.draw(st.integers(0, case.length - 1))
    mask = np.ones((case.query.shape[0], case.length), dtype=np.bool_)
    mask[:, row] = False
    if case.key_mask is not None:
        mask &= case.key_mask
    options = {**case.options, "key_mask": mask}
    gradients = (case.dout, case.dlse)
    results = []
    for poison in (0.0, np.nan, np.inf):
        key, value = case.key.copy(), case.value.copy()
        key[:, row], value[:, row] = poison, -poison
        call = (case.query, key, value, case.pattern)
        results.append((*forward(*call, **options), *backward(*call, *gradients, **options)))
    terms = term_sizes(*case.tensors, case.pattern, *gradients, **options)
    for clean, *poisoned in zip(*results, strict=True):
        seen = ~np.isneginf(clean)
        size = terms[[x is clean for x in results[0]].index(True)][seen]
        for actual in poisoned:
            assert np.array_equal(np.isneginf(actual), ~seen)
            check("array", actual[seen], clean[seen], clean[seen], "float64", size)


@given(data=st.data())
def test_heads_and_batch_may_be_permuted(data: st.DataObject) -> None:
    case: Case = data.draw(cases(features={"longnet", "causal", "key_mask"}, max_length=16))
    heads = data.draw(st.permutations(range(case.num_heads)))
    batch = data.draw(st.permutations(range(case.query.shape[0])))
    offsets = case.pattern.offsets(case.num_heads)
    table = tuple(tuple(row[h] for h in heads) for row in offsets)
    mask = None if case.key_mask is None else case.key_mask[batch]
    q, k, v = (x[batch][:, :, heads] for x in case.tensors)
    permuted = Pattern(case.pattern.branches, "table", table)
    actual = forward(q, k, v, permuted, **{**case.options, "key_mask": mask})
    expected = forward(*case.tensors, case.pattern, **case.options)
    for got, want in zip(actual, expected, strict=True):
        assert np.array_equal(got, want[batch][:, :, heads])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query": QUERY[0]}, ValueError),
        ({"key": KEY[:, :9]}, ValueError),
        ({"value": VALUE[..., :2]}, ValueError),
        ({"query": RNG.standard_normal((2, 11, 3, 3))}, ValueError),
        ({"query": QUERY.astype(np.int64)}, TypeError),
        ({"pattern": ((4, 1),)}, TypeError),
        ({"key_mask": np.ones((2, 10), dtype=bool)}, ValueError),
        ({"key_mask": np.ones((2, 11))}, TypeError),
        ({"cu_seqlens": np.array([0, 11])}, ValueError),
        ({"dropout_p": 0.5}, ValueError),
        ({"dropout_p": -0.5, "seed": 1}, ValueError),
        (
            {"pattern": Pattern(((4, 1),), "torchscale", None, True), "dropout_p": 0.5, "seed": 1},
            ValueError,
        ),
    ],
)
def test_wrong_arguments_raise(arguments: dict[str, Any], error: type[Exception]) -> None:
    call = {"query": QUERY, "key": KEY, "value": VALUE, "pattern": Pattern(((4, 1),)), **arguments}
    with pytest.raises(error):
        forward(**call)


@pytest.mark.parametrize("bounds", [[1, 11], [0, 10], [0, 6, 5, 11], [0]])
def test_wrong_boundaries_raise(bounds: list[int]) -> None:
    q, k, v = (x[:1] for x in (QUERY, KEY, VALUE))
    with pytest.raises(ValueError, match="cu_seqlens"):
        forward(q, k, v, Pattern(((4, 1),)), cu_seqlens=np.array(bounds))


@pytest.mark.parametrize("wrong", [{"dout": DOUT[:, :9]}, {"dlse": DOUT}])
def test_wrong_gradients_raise(wrong: dict[str, Array]) -> None:
    with pytest.raises(ValueError, match="expected"):
        backward(QUERY, KEY, VALUE, Pattern(((4, 1),)), **{"dout": DOUT, **wrong})
