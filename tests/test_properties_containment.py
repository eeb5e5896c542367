"""Rows not selected, masked, or of another document reach nothing, whatever they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case
from support.containment import contains_keys, contains_queries
from support.ring_calls import ONE_DEVICE, Ring, even_ring, fixed_case
from support.ring_strategies import EXACT, examples, ring_cases

BOTH = ("sharded", "replicated")


@st.composite
def poisons(draw: st.DrawFn) -> tuple[Case, Ring, int, float]:
    case, ring = draw(
        ring_cases(features=EXACT, dtypes=("float64", "bfloat16"), layouts=BOTH, max_length=14)
    )
    token = draw(st.integers(0, case.length - 1))
    return case, ring, token, draw(st.sampled_from([np.nan, np.inf, -np.inf]))


@examples()
@given(drawn=poisons())
def test_rubbish_keys_reach_only_who_sees_them(drawn: tuple[Case, Ring, int, float]) -> None:
    contains_keys(*drawn)


@examples()
@given(drawn=poisons())
def test_rubbish_queries_reach_only_what_they_see(
    drawn: tuple[Case, Ring, int, float],
) -> None:
    contains_queries(*drawn)


@pytest.mark.parametrize("ring", [ONE_DEVICE, even_ring(12, 3), even_ring(12, 3, block=2)])
@pytest.mark.parametrize("reason", ["masked", "not selected", "other document"])
def test_a_hidden_row_of_nan_leaves_everything_finite(reason: str, ring: Ring) -> None:
    pattern = Pattern(((6, 2), (12, 3)), "table", ((0,), (0,)))
    case = fixed_case(12, pattern, heads=1, kv_heads=1)
    # Token 5 has residues 1 and 2; tokens 6 to 11 stand in the second half.
    token = 5
    if reason == "masked":
        case = replace(case, key_mask=np.arange(12)[None] != 6)
        token = 6
    if reason == "other document":
        case = replace(case, cu_seqlens=np.array([0, 6, 12]))
        token = 9
    dirty = contains_keys(case, ring, token, np.nan)
    rows = slice(None) if reason != "other document" else slice(0, 6)
    for name in ("out", "dq", "dk", "dv"):
        assert np.isfinite(getattr(dirty, name)[:, rows]).all(), name
