"""Strategies for patterns as `definition` states them."""

from __future__ import annotations

from hypothesis import strategies as st

from dilated_attention_oracle.strategies import boundaries, head_counts, lengths, patterns

from .definition import Question
from .ring_calls import Ring
from .ring_strategies import EXACT, rings

RULES = EXACT[:4]


@st.composite
def questions(draw: st.DrawFn, max_length: int = 20) -> Question:
    """Patterns without torchscale's switches, on short sequences."""
    n = draw(lengths(max_length))
    heads, kv_heads = draw(head_counts(4))
    bounds = draw(st.none() | boundaries(n))
    return Question(
        draw(patterns(n, heads, features=RULES)),
        n,
        heads,
        kv_heads,
        draw(st.booleans()),
        None if bounds is None else tuple(bounds.tolist()),
    )


@st.composite
def questions_and_rings(draw: st.DrawFn) -> tuple[Question, Ring]:
    question = draw(questions())
    return question, draw(rings(question.n, layouts=("sharded", "replicated")))
