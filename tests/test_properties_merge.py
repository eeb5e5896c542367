"""Merging partials: associative, commutative, with an identity; +inf and NaN are not lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import merge_partials as oracle_merge
from dilated_attention_oracle.tolerance import C
from dilated_attention_pytorch import merge_partials
from support.merge_checks import SHAPE, Part, arrays, merge_equals_oracle, merged, near
from support.ring_strategies import examples

DTYPES = ("float64", "float32", "bfloat16", "float16")


@st.composite
def partials(draw: st.DrawFn, count: int | None = None) -> list[Part]:
    """Partials of a few rows; some rows empty, with anything in their out."""
    found = []
    for _ in range(draw(st.integers(1, 4)) if count is None else count):
        generator = np.random.default_rng(draw(st.integers(0, 2**16)))
        out = generator.standard_normal(SHAPE)
        lse = generator.standard_normal(SHAPE[:-1]) * draw(st.sampled_from([1.0, 20.0, 300.0]))
        empty = np.array(draw(st.lists(st.booleans(), min_size=6, max_size=6))).reshape(SHAPE[:-1])
        lse[empty] = -np.inf
        out[empty] = draw(st.sampled_from([0.0, np.nan, np.inf]))
        found.append((out, lse))
    return found


@examples()
@given(parts=partials(), dtype=st.sampled_from(DTYPES))
def test_merge_equals_the_oracle(parts: list[Part], dtype: str) -> None:
    merge_equals_oracle(parts, dtype)


@examples()
@given(parts=partials(3))
def test_merge_is_associative_and_commutative(parts: list[Part]) -> None:
    a, b, c = parts
    whole = arrays(merged(parts))
    near(arrays(merged([c, a, b])), whole, "float64")
    near(arrays(merged([arrays(merged([a, b])), c])), whole, "float64")
    near(arrays(merged([a, arrays(merged([b, c]))])), whole, "float64")


@examples(0.5)
@given(parts=partials(1), rubbish=st.sampled_from([0.0, np.nan, np.inf, -np.inf]))
def test_an_empty_part_is_the_identity(parts: list[Part], rubbish: float) -> None:
    """Bitwise: weight 1 times out, whatever the empty part holds and wherever it stands."""
    ((out, lse),) = parts
    nothing = np.full(SHAPE, rubbish), np.full(SHAPE[:-1], -np.inf)
    want = np.where(np.isneginf(lse)[..., None], 0.0, out)
    for order in ([parts[0], nothing], [nothing, parts[0]], [nothing, parts[0], nothing]):
        found, found_lse = arrays(merged(order))
        assert np.array_equal(found_lse, lse)
        assert np.array_equal(found, want)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_infinities_and_nans_propagate(value: float, position: int) -> None:
    parts = [(np.ones(SHAPE), np.zeros(SHAPE[:-1])) for _ in range(3)]
    parts[position][1][0, 1, 0] = value
    out, lse = arrays(merged(parts))
    with np.errstate(invalid="ignore"):
        want, want_lse = oracle_merge(*zip(*parts, strict=True))
    assert np.array_equal(lse, want_lse, equal_nan=True) or np.allclose(
        lse[np.isfinite(want_lse)], want_lse[np.isfinite(want_lse)], rtol=C["float64"] * 2**-52
    )
    assert lse[0, 1, 0] == value or (np.isnan(value) and np.isnan(lse[0, 1, 0]))
    assert np.isnan(out[0, 1, 0]).all()
    others = np.ones(SHAPE[:-1], dtype=np.bool_)
    others[0, 1, 0] = False
    assert np.isfinite(out[others]).all()
    assert np.isfinite(lse[others]).all()
    del want


def test_merging_is_differentiable() -> None:
    """Empty parts and rows without any key have gradients of 0, never NaN."""
    generator = torch.Generator().manual_seed(0)
    outs = torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator)
    lses = torch.randn(3, *SHAPE[:-1], dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(
        lambda a, b: merge_partials(a.unbind(), b.unbind()),
        (outs.requires_grad_(), lses.requires_grad_()),
    )
    holes = lses.detach().clone()
    holes[1] = -torch.inf
    holes[:, 0, 0, 0] = -torch.inf
    holes.requires_grad_()
    out, lse = merge_partials(outs, holes)
    (out.sum() + lse[torch.isfinite(lse)].sum()).backward()
    assert outs.grad is not None
    assert holes.grad is not None
    for gradient in (outs.grad, holes.grad):
        assert torch.isfinite(gradient).all()
        assert (gradient[1] == 0).all()
        assert (gradient[:, 0, 0, 0] == 0).all()
