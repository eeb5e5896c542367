"""What must not matter: the order of batch entries and heads, and, causally, the future."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle.strategies import Case
from support.ring_calls import Ring
from support.ring_strategies import EXACT, examples, ring_cases
from support.symmetry_checks import permutes, prefix_is_independent

BOTH = ("sharded", "replicated")
WITHOUT_DROPOUT = tuple(name for name in EXACT if name != "dropout")


@st.composite
def permuted(draw: st.DrawFn) -> tuple[Case, Ring, list[int], list[int]]:
    """A case and a new order of its batch entries and key/value heads."""
    case, ring = draw(ring_cases(features=WITHOUT_DROPOUT, layouts=BOTH, max_length=16))
    batch = draw(st.permutations(range(case.query.shape[0])))
    return case, ring, list(batch), list(draw(st.permutations(range(case.key.shape[2]))))


@examples()
@given(drawn=permuted())
def test_permutation_of_batch_and_heads(drawn: tuple[Case, Ring, list[int], list[int]]) -> None:
    permutes(*drawn)


@st.composite
def causal_cases(draw: st.DrawFn) -> tuple[Case, Ring, int]:
    case, ring = draw(ring_cases(features=EXACT, layouts=BOTH, max_length=16))
    return replace(case, is_causal=True), ring, draw(st.integers(0, case.length))


@examples()
@given(drawn=causal_cases())
def test_causal_prefix_is_independent(drawn: tuple[Case, Ring, int]) -> None:
    prefix_is_independent(*drawn)
