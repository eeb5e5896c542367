"""Stream tables of a ring's ranks count every pair of the definition as often as branches do."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import plan_rank
from support.definition import Question
from support.question_strategies import questions
from support.ring_strategies import examples
from support.ring_stream_checks import Triple, pairs_of_keys, pairs_of_queries
from support.schedule_checks import problem_of


def wanted_pairs(question: Question) -> Counter[Triple]:
    wanted: Counter[Triple] = Counter()
    for (_, head, query, key), count in question.pairs().items():
        wanted[head, query, key] += count
    return wanted


def tables_hold_each_pair_once(
    question: Question, lengths: tuple[int, ...], half: int, block: int, buffer_shards: int = 2
) -> bool:
    """False where some rank's tables cannot be made."""
    problem = problem_of(question)
    layout = make_layout(question.n, len(lengths), "contiguous", lengths)
    found: Counter[Triple] = Counter()
    for rank in range(layout.ring_size):
        some = pairs_of_queries(plan_rank(problem, layout, rank, buffer_shards), half, block)
        if some is None:
            return False
        found += some
    wanted = wanted_pairs(question)
    assert found == wanted
    by_keys = pairs_of_keys(problem, layout, half, block, buffer_shards)
    if by_keys is None:
        return False
    assert by_keys == wanted
    return True


# (w, r) of the branches, rows per rank, H, H_kv, causal, rows of a half, block, buffers
CASES = {
    "ladder": (((8, 1), (16, 2), (64, 4), (64, 8)), (32, 32), 4, 4, False, 4, 4, 2),
    "ladder, causal": (((8, 1), (32, 2), (64, 4)), (16, 16, 16, 16), 4, 4, True, 2, 4, 2),
    "dense": (((48, 1),), (16, 16, 16), 2, 1, False, 4, 8, 2),
    "dense, causal": (((48, 1),), (16, 16, 16), 2, 2, True, 4, 8, 2),
    # Received rows end in a block that others fill in part.
    "a rest": (((48, 1),), (16, 16, 16), 2, 1, False, 4, 6, 2),
    "a rest, causal": (((48, 1), (48, 2)), (16, 16, 16), 2, 2, True, 4, 6, 2),
    "groups of rounds": (((8, 1), (96, 3)), (24, 24, 24, 24), 3, 3, True, 2, 4, 8),
    "grouped heads": (((16, 2), (64, 4)), (32, 32), 4, 2, True, 4, 4, 2),
    "uneven": (((10, 1), (70, 5)), (30, 20, 20), 5, 5, False, 4, 2, 2),
    "three rates": (((8, 1), (64, 2), (64, 4), (64, 8)), (32, 32), 2, 2, False, 4, 2, 2),
}


@pytest.mark.parametrize("name", list(CASES))
def test_tables_hold_each_pair_once(name: str) -> None:
    branches, lengths, heads, kv_heads, causal, half, block, buffers = CASES[name]
    question = Question(Pattern(branches), sum(lengths), heads, kv_heads, causal)
    assert tables_hold_each_pair_once(question, lengths, half, block, buffers)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Question, tuple[int, ...]]:
    """A question and equal shards, as those that begin where segments do are rare otherwise."""
    size = draw(st.integers(1, 4))
    question = draw(questions())
    each = -(-question.n // size)
    return question, tuple(max(0, min(each, question.n - each * i)) for i in range(size))


@examples(3)
@given(splits(), st.sampled_from([1, 2, 8]), st.sampled_from([1, 1, 2, 4]), st.sampled_from([2, 8]))
def test_any_tables_hold_each_pair_once(
    split: tuple[Question, tuple[int, ...]], half: int, block: int, buffer_shards: int
) -> None:
    tables_hold_each_pair_once(*split, half, block, buffer_shards)
