"""The schedule holds every (query, key, branch, head) pair exactly once, over all ranks."""

from __future__ import annotations

from hypothesis import given

from support.definition import Question
from support.question_strategies import questions, questions_and_rings
from support.ring_calls import ONE_DEVICE, Ring
from support.ring_strategies import examples
from support.schedule_checks import (
    calls_compute_each_pair_once,
    plans_hold_each_pair_once,
    rounds_of_all_ranks_match,
)


@examples(2)
@given(drawn=questions_and_rings())
def test_plans_hold_each_pair_once(drawn: tuple[Question, Ring]) -> None:
    plans_hold_each_pair_once(*drawn)


@examples()
@given(drawn=questions_and_rings())
def test_rounds_of_all_ranks_match(drawn: tuple[Question, Ring]) -> None:
    rounds_of_all_ranks_match(*drawn)


@examples(2)
@given(drawn=questions_and_rings())
def test_rings_compute_each_pair_once(drawn: tuple[Question, Ring]) -> None:
    calls_compute_each_pair_once(*drawn)


@examples(0.5)
@given(question=questions())
def test_one_device_computes_each_pair_once(question: Question) -> None:
    calls_compute_each_pair_once(question, ONE_DEVICE)
