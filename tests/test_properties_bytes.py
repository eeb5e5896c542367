"""Only rows that someone uses travel, each once: recorded bytes equal a count of pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import key_masks
from support.bytes_moved import bytes_equal_the_count_of_pairs, recorded
from support.definition import Question
from support.question_strategies import questions_and_rings
from support.ring_calls import Ring, even_ring
from support.ring_strategies import examples


@examples(2)
@given(drawn=questions_and_rings(), data=st.data())
def test_bytes_equal_the_count_of_pairs(drawn: tuple[Question, Ring], data: st.DataObject) -> None:
    question, ring = drawn
    batch = 1 if question.cu_seqlens else data.draw(st.integers(1, 2))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    mask = data.draw(st.none() | key_masks(batch, question.n).map(torch.tensor))
    bytes_equal_the_count_of_pairs(question, ring, dtype, batch, mask)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_local_pattern_moves_next_to_nothing(size: int) -> None:
    """Segments inside the shards: nothing travels, whereas an all-gather would move it all."""
    question = Question(Pattern(((4, 1), (8, 2))), 64, 2, 2)
    forward, backward = recorded(
        question,
        even_ring(64, size),
        [torch.ones(1, 64, 2, 3, requires_grad=True) for _ in range(3)],
    )
    assert not forward
    assert not backward
