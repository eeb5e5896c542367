"""Tile tables hold every pair of the definition once, and every row of a head once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_pytorch.pattern import DilationPattern
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.tables import TileTable, count_cells, tile_table
from support.definition import Pair, Question
from support.question_strategies import questions
from support.ring_strategies import examples
from support.schedule_checks import problem_of


def pairs_of(problem: Problem, table: TileTable, other: int, *, keys: bool) -> Counter[Pair]:
    """What a kernel computes that follows the table, masks included."""
    found: Counter[Pair] = Counter()
    members = problem.num_heads // problem.num_kv_heads if keys else 1
    for head, tile in table.programs.tolist():
        start, step, count, document = table.tiles[tile].tolist()
        rows = start + step * np.arange(count)
        for lane in range(members * problem.num_branches):
            member, branch = divmod(lane, problem.num_branches)
            first, length, full_begin, full_end = table.entries[tile, lane].tolist()
            rule = problem.pattern.branches[branch]
            others = first + rule.dilation_rate * np.arange(length)
            query, key = (
                (others[None, :], rows[:, None]) if keys else (rows[:, None], others[None, :])
            )
            w = rule.segment_length
            seen = (query - document) // w == (key - document) // w
            assert table.straddles or bool(seen.all()), "segments are checked only where asked for"
            if problem.is_causal:
                seen = seen & (key <= query)
            assert seen[:, full_begin:full_end].all(), "these pairs are computed without masks"
            assert full_begin % other == 0 or full_begin == length
            query, key = np.broadcast_arrays(query, key)
            for p, k in zip(query[seen].tolist(), key[seen].tolist(), strict=True):
                found[branch, head * members + member, p, k] += 1
    return found


def tables_hold_each_pair_once(question: Question, block: int, other: int) -> None:
    problem = problem_of(question)
    pairs = question.pairs()
    for keys, heads in ((False, question.heads), (True, question.kv_heads)):
        table = tile_table(problem, block, other, keys=keys)
        assert pairs_of(problem, table, other, keys=keys) == pairs
        written: Counter[tuple[int, int]] = Counter()
        for head, tile in table.programs.tolist():
            start, step, count, _ = table.tiles[tile].tolist()
            assert 1 <= count <= block
            written.update((head, start + step * i) for i in range(count))
        assert written == Counter((h, p) for h in range(heads) for p in range(question.n))


@examples(3)
@given(questions(), st.sampled_from([1, 3, 16]), st.sampled_from([1, 4, 16]))
def test_tables_hold_each_pair_once(question: Question, block: int, other: int) -> None:
    tables_hold_each_pair_once(question, block, other)


def test_cells_are_counted_without_making_them() -> None:
    pattern = DilationPattern.longnet([10, 12, 7], [3, 2, 7])
    # Only (10, 3) selects unevenly: documents of 25 and 5 rows have 3 cells and 1.
    assert count_cells(Problem(pattern, 30, 2, 2, cu_seqlens=(0, 25, 25, 30))) == 4
    assert count_cells(Problem(pattern, 5, 2, 2)) == 1


def test_the_row_shift_is_refused() -> None:
    pattern = DilationPattern.torchscale([4], [3], phantom_keys=True, shift_rows=True)
    with pytest.raises(ValueError, match="row shift"):
        tile_table(Problem(pattern, 9, 1, 1), 16, 16)
