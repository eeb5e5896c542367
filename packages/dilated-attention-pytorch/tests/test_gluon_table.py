"""The packed table, read as the Hopper kernels read it: producer and consumers count alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.kernels.gluon.blocks import HALF
from dilated_attention_pytorch.kernels.gluon.table import pack
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.streams import WHOLE, stream_table
from support.definition import Question
from support.question_strategies import questions
from support.ring_strategies import examples
from support.schedule_checks import problem_of

RECORD, ENTRY = 32, 8


def _entries(array: np.ndarray, begin: int, end: int) -> np.ndarray:
    assert (end - begin) % ENTRY == 0
    return array[begin:end].reshape(-1, ENTRY)


def halves_follow_the_stream(problem: Problem, half: int, block: int, *, keys: bool) -> int:
    """How many blocks halves meet as pieces that are edges of their tile."""
    table = stream_table(problem, half, block, keys=keys)
    array = pack(table)
    met = 0
    for number, (head, tile) in enumerate(table.programs.tolist()):
        record = array[RECORD * number : RECORD * (number + 1)].tolist()
        assert record[0] == head
        assert record[1:6] == table.tiles[tile, :5].tolist()
        assert record[18:21] == table.tiles[tile, [0, 2, 4]].tolist()
        pieces = _entries(array, record[6], record[7])
        edges = _entries(array, record[8], record[9])
        begin, end, edge_begin, edge_end = table.tiles[tile, 5:9].tolist()
        assert (pieces == table.pieces[begin:end]).all()
        assert (edges == table.edges[edge_begin:edge_end]).all()
        streamed = np.concatenate([np.repeat(pieces[:, 1], pieces[:, 0]), edges[:, 3]])
        for c in range(2):
            mine = _entries(array, record[6], record[12 + c])
            weights = np.repeat(mine[:, 1], mine[:, 0])
            assert record[16 + c] == len(weights)
            assert (weights == streamed[: len(weights)]).all()
            # Masks begin where these blocks end, with edges of this half's, up to one that is not.
            whole = _entries(array, record[8], record[14 + c])
            assert len(weights) == pieces[:, 0].sum() + len(whole)
            assert (whole[:, 4] & WHOLE << c > 0).all()
            own = _entries(array, record[14 + c], record[10 + c])
            assert (own[:, 4] >> c & 1 > 0).all()
            assert record[10 + c] <= record[9]
            met += len(whole)
    return met


@examples(2)
@given(questions(), st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 16]), st.booleans())
def test_halves_follow_the_stream(question: Question, half: int, block: int, keys: bool) -> None:
    halves_follow_the_stream(problem_of(question), half, block, keys=keys)


@pytest.mark.parametrize("keys", [False, True])
def test_causal_tiles_meet_edges_as_pieces(keys: bool) -> None:
    """The later half of queries, or the earlier one of keys, sees the other's diagonal whole."""
    pattern = DilationPattern.longnet([256, 512, 1024], [1, 2, 4])
    problem = Problem(pattern, 2048, 4, 4, is_causal=True)
    table = stream_table(problem, 16, 16, keys=keys)
    met = halves_follow_the_stream(problem, 16, 16, keys=keys)
    assert met > 0.3 * len(table.edges[table.edges[:, 4] & 3 == 3])


def test_stacked_results() -> None:
    pattern = DilationPattern.longnet([256, 512], [1, 2])
    table = stream_table(Problem(pattern, 1024, 2, 2, is_causal=False), HALF, 64, keys=True)
    array = pack(table, stacked=True)
    records = array[: RECORD * len(table.programs)].reshape(-1, RECORD)
    first = 2 * HALF * np.arange(len(records))
    assert (records[:, 18:21] == np.stack([first, first + HALF, np.ones_like(first)], 1)).all()
