"""Tile tables hold every pair of the definition once, and every row of a head once."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_pytorch.pattern import DilationPattern
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.classes import count_cells, row_classes
from dilated_attention_pytorch.schedule.filling import room_for_a_row
from dilated_attention_pytorch.schedule.tables import TileTable, tile_table
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


Answer = tuple[int, int, int, int]


def answers_of(problem: Problem, table: TileTable, side: str) -> Counter[Answer]:
    """(branch, head, row of out, key) of every pair that a kernel computes, lanes included."""
    assert table.lanes is not None
    found: Counter[Answer] = Counter()
    members = problem.num_heads // problem.num_kv_heads if side == "keys" else 1
    for head, tile in table.programs.tolist():
        start, step, count, _ = table.tiles[tile].tolist()
        rows = start + step * np.arange(count)
        for lane in range(members * problem.num_branches):
            member, branch = divmod(lane, problem.num_branches)
            covered, shift, end, origin = table.lanes[tile, lane].tolist()
            first, length, full_begin, full_end = table.entries[tile, lane].tolist()
            assert covered or not length
            others = first + problem.pattern.branches[branch].dilation_rate * np.arange(length)
            # Tiles of out lie on its rows, which follow their queries.
            asked = (rows - shift if side == "outputs" else rows)[:, None]
            query, key = (
                (others[None, :], rows[:, None]) if side == "keys" else (asked, others[None, :])
            )
            shifted = problem.shifted(branch)
            span = problem.padded_segment(branch) if shifted else problem.segment_length(branch)
            seen = (query - origin) // span == (key - origin) // span
            if problem.is_causal:
                seen = seen & (key <= query)
            assert seen[:, full_begin:full_end].all(), "these pairs are computed without masks"
            real = np.broadcast_to(query < end, seen.shape)
            assert side != "keys" or real[:, full_begin:full_end].all()
            query, key, real = np.broadcast_arrays(query, key, real)
            for q, k, is_real in zip(query[seen], key[seen], real[seen], strict=True):
                answer = int(q) + shift
                segment, place = problem.query_coordinates(branch, np.asarray([answer]))
                assert int(segment[0] + place[0]) == int(q)
                in_segment = int(place[0]) < problem.segment_length(branch)
                assert bool(is_real) == (in_segment and int(q) < problem.n)
                found[branch, head * members + member, answer, int(k)] += 1
    return found


def answers(problem: Problem, *, with_zero_queries: bool) -> Counter[Answer]:
    """The same by torchscale's rule, pair by pair."""
    found: Counter[Answer] = Counter()
    positions = np.arange(problem.n)
    for branch in range(problem.num_branches):
        rate, w = problem.pattern.branches[branch].dilation_rate, problem.segment_length(branch)
        segments, places = problem.query_coordinates(branch, positions)
        key_segments, key_places = problem.key_coordinates(branch, positions)
        for head, offset in enumerate(problem.offsets[branch]):
            for t in positions.tolist():
                real = places[t] < w and segments[t] + places[t] < problem.n
                if places[t] % rate != offset or not (real or with_zero_queries):
                    continue
                for k in positions.tolist():
                    if key_segments[k] != segments[t] or key_places[k] % rate != offset:
                        continue
                    if not problem.is_causal or key_places[k] <= places[t]:
                        found[branch, head, t, k] += 1
    return found


@examples(3)
@given(
    st.integers(1, 24),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([1, 4, 16]),
)
def test_tables_follow_the_row_shift(
    n: int, branches: list[tuple[int, int]], is_causal: bool, block: int
) -> None:
    lengths, rates = zip(*branches, strict=True)
    pattern = DilationPattern.torchscale(lengths, rates, phantom_keys=True, shift_rows=True)
    problem = Problem(pattern, n, 4, 2, is_causal)
    # Queries of zeros have no gradient, so that tiles of queries leave them out.
    for side, with_zero_queries in (("outputs", True), ("keys", True), ("", False)):
        table = tile_table(problem, block, 4, **({side: True} if side else {}))
        wanted = answers(problem, with_zero_queries=with_zero_queries)
        assert answers_of(problem, table, side) == wanted
        assert table.lanes is not None
        if side == "outputs":
            covered = Counter(
                (branch, head, table.tiles[tile, 0] + table.tiles[tile, 1] * row)
                for head, tile in table.programs.tolist()
                for branch in range(problem.num_branches)
                if table.lanes[tile, branch, 0]
                for row in range(table.tiles[tile, 2])
            )
            places = [problem.query_coordinates(i, np.arange(n))[1] for i in range(len(rates))]
            assert covered == Counter(
                (i, h, t)
                for i, row in enumerate(problem.offsets)
                for h, offset in enumerate(row)
                for t in range(n)
                if places[i][t] % rates[i] == offset
            )


@examples(1)
@given(questions())
def test_classes_hold_every_row_once_with_what_covers_it(question: Question) -> None:
    problem = problem_of(question)
    rates = tuple(branch.dilation_rate for branch in problem.pattern.branches)
    period = math.lcm(*rates)
    for offsets in zip(*problem.offsets, strict=True):
        seen: Counter[int] = Counter()
        for first, step, used in row_classes(rates, (0,) * len(rates), (offsets,)):
            rows = range(first, period, step)
            seen.update(rows)
            for row in rows:
                covers = tuple(row % r == o for r, o in zip(rates, offsets, strict=True))
                assert covers == used
        assert seen == Counter(range(period))


def test_rows_of_a_class_lie_as_near_as_they_can() -> None:
    """Of the rates 1, 4 and 64 the rows of the first alone are two classes, not 48 of step 64."""
    found = row_classes((1, 4, 64), (0, 0, 0), ((0, 1, 5),))
    alone = (True, False, False)
    assert [x for x in found if not x[2][1]] == [(0, 2, alone), (3, 4, alone)]
    pattern = DilationPattern.longnet([1024, 8192, 65536], [1, 8, 64])
    assert room_for_a_row(Problem(pattern, 1 << 16, 4, 4), 64) < 1.3
