from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern, backward, check_result, forward
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.strategies import FEATURES, Case, cases

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float64).eps)


def loss(case: Case, direction: list[Array], step: float) -> float:
    """The loss that dout and dlse belong to, a step along a direction away."""
    q, k, v = (x + step * u for x, u in zip(case.tensors, direction, strict=True))
    out, lse = forward(q, k, v, case.pattern, **case.options)
    seen = ~np.isneginf(lse)
    return float((case.dout * out).sum() + (case.dlse[seen] * lse[seen]).sum())


def slope(case: Case, direction: list[Array], step: float) -> float:
    return (loss(case, direction, step) - loss(case, direction, -step)) / (2.0 * step)


def check_slope(case: Case, direction: list[Array]) -> None:
    """<gradient, direction> equals the central difference within that difference's own error."""
    gradients = backward(*case.tensors, case.pattern, case.dout, case.dlse, **case.options)
    predicted = sum(float((g * u).sum()) for g, u in zip(gradients, direction, strict=True))
    step = EPS ** (1 / 3)
    coarse, fine = slope(case, direction, step), slope(case, direction, step / 2)
    # Halving the step takes three quarters of the truncation error away; what is left of it is a
    # third of the change. Rounding: each loss is exact to eps times its terms.
    out, lse = forward(*case.tensors, case.pattern, **case.options)
    seen = ~np.isneginf(lse)
    terms = np.abs(case.dout * out).sum() + np.abs(case.dlse[seen] * lse[seen]).sum()
    rounding = 64 * EPS * (1.0 + terms) / step
    assert abs(predicted - fine) <= abs(coarse - fine) + rounding


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_gradient_is_the_central_difference(data: st.DataObject) -> None:
    case = data.draw(cases(features=set(FEATURES) - {"torchscale_switches"}, max_length=20))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    check_slope(case, [generator.standard_normal(x.shape) for x in case.tensors])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_gradient_alone(which: int) -> None:
    generator = np.random.default_rng(which)
    shape = (1, 13, 4, 3)
    q, k, v, dout = generator.standard_normal((4, *shape))
    case = Case(q, k, v, dout, generator.standard_normal(shape[:3]), Pattern(((4, 1), (16, 3))))
    direction = [np.zeros(shape) for _ in range(3)]
    direction[which] = generator.standard_normal(shape)
    check_slope(case, direction)
    check_slope(replace(case, is_causal=True, dropout_p=0.3, seed=3), direction)


@pytest.mark.parametrize("shift_rows", [False, True])
def test_gradient_with_phantom_keys(shift_rows: bool) -> None:
    generator = np.random.default_rng(5)
    shape = (1, 23, 4, 3)
    q, k, v, dout = generator.standard_normal((4, *shape))
    pattern = Pattern(((5, 2), (9, 4)), "torchscale", None, True, False, shift_rows)
    case = Case(q, k, v, dout, generator.standard_normal(shape[:3]), pattern)
    check_slope(case, [generator.standard_normal(shape) for _ in range(3)])


@settings(max_examples=40, deadline=None)
@given(case=cases(features={"torchscale", "torchscale_switches", "causal", "grouped_query"}))
def test_gradients_of_the_switches_are_autograd_s(case: Case) -> None:
    # detach_mix is not the derivative of its forward, so autograd's detach is what it is held to.
    call = (*case.tensors, case.pattern, case.dtype)
    options = {"dout": case.dout, "dlse": case.dlse, **case.options}
    plain = naive(*call, **options)
    check_result(plain, reference(*call, **options), plain, case.dtype)
