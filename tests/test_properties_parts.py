"""Part tables hold the runs' pairs once each, and every row of a head in one tile at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.functional.group import order_map
from dilated_attention_pytorch.layout import Layout, make_layout
from dilated_attention_pytorch.schedule import (
    Groups,
    Problem,
    RunList,
    own_problem,
    own_problems,
    plan_rank,
)
from dilated_attention_pytorch.schedule import parts as parts_module
from dilated_attention_pytorch.schedule.parts import PartTable, Side, part_table
from support.definition import Pair, Question, require_same_pairs
from support.question_strategies import questions, questions_and_rings
from support.ring_calls import Ring, even_ring
from support.ring_strategies import examples
from support.schedule_checks import pairs_of, problem_of

# Keys and key/value heads of each part.
Parts = Sequence[tuple[Groups, tuple[int, ...]]]


def computed(
    problem: Problem,
    table: PartTable,
    side: Side,
    other: int,
    queries: Groups,
    parts: Parts,
) -> Counter[Pair]:
    """What a kernel computes that follows the table, masks included."""
    found: Counter[Pair] = Counter()
    group = problem.num_heads // problem.num_kv_heads
    for own_head, first_other, number, part in table.programs.tolist():
        keys, heads = parts[part]
        own_rows, other_rows = (queries, keys) if side == "query" else (keys, queries)
        first, step, count, position, gap, _, begin, end = table.tiles[number].tolist()
        index = np.arange(count)
        own = position + gap * index
        assert own.tolist() == own_rows.positions[first + step * index].tolist()
        for entry in table.entries[begin:end].tolist():
            (
                row,
                row_step,
                rows,
                full_begin,
                full_end,
                at,
                jump,
                segment,
                rate,
                branch,
                member,
                _,
            ) = entry
            index = np.arange(rows)
            others = at + jump * index
            assert others.tolist() == other_rows.positions[row + row_step * index].tolist()
            assert rate == problem.pattern.branches[branch].dilation_rate
            query, key = (
                (own[:, None], others[None]) if side == "query" else (others[None], own[:, None])
            )
            # Dropout numbers a segment's keys from its start.
            starts, places = problem.key_coordinates(branch, np.asarray(key).reshape(-1))
            assert (starts == segment).all()
            assert ((np.asarray(key).reshape(-1) - segment) // rate == places // rate).all()
            query, key = np.broadcast_arrays(query, key)
            seen = key <= query if problem.is_causal else np.ones(query.shape, dtype=np.bool_)
            assert seen[:, full_begin:full_end].all(), "these pairs are computed without masks"
            assert full_begin % other == 0 or full_begin == rows
            assert side == "key" or full_begin == 0
            head, place = (
                (own_head, first_other) if side == "query" else (first_other + member, own_head)
            )
            assert heads[place] == head // group
            for p, k in zip(query[seen].tolist(), key[seen].tolist(), strict=True):
                found[branch, head, p, k] += 1
    return found


def holds_the_runs(
    problem: Problem,
    runs: tuple[RunList, ...],
    queries: Groups,
    parts: Parts,
    block: int,
    other: int,
) -> None:
    wanted: Counter[Pair] = Counter()
    for found, (keys, heads) in zip(runs, parts, strict=True):
        wanted += pairs_of(problem, found, queries, keys, heads)
    sides: tuple[Side, ...] = ("query", "key")
    for side in sides:
        for lanes in (False, True):
            table = part_table(problem, runs, side, block, other, lanes=lanes)
            require_same_pairs(computed(problem, table, side, other, queries, parts), wanted)
            written: Counter[tuple[int, int, int, int]] = Counter()
            for head, _, number, part in table.programs.tolist():
                first, step, count, _, _, lane, _, _ = table.tiles[number].tolist()
                assert 1 <= count <= block
                # Parts share the query side, and have rows of their own on the key side.
                place = part if side == "key" else 0
                written.update((lane, place, head, first + step * i) for i in range(count))
            assert not written or max(written.values()) == 1, "two programs write one row"


def tables_hold_each_pair_once(question: Question, ring: Ring, block: int, other: int) -> None:
    problem = problem_of(question)
    layout = make_layout(
        question.n, ring.size, order_map(ring.options["order"]), ring.shard_lengths
    )
    every_head = tuple(range(question.kv_heads))
    for rank in range(ring.size):
        plan = plan_rank(problem, layout, rank, ring.buffer_shards)
        own = [(plan.keys, every_head)]
        holds_the_runs(problem, (plan.local_runs(),), plan.queries, own, block, other)
        for group in range(len(plan.groups)):
            if not plan.received(group):
                continue
            parts = [
                (Groups(problem, positions, queries=False), key_class.heads)
                for key_class, positions in zip(
                    plan.classes, plan.gathered(group).positions, strict=True
                )
            ]
            runs = plan.remote_runs(group)
            holds_the_runs(problem, runs, plan.queries, parts, block, other)


CAUSAL_GROUPS = Question(Pattern(((4, 1), (16, 2))), 16, 4, 2, is_causal=True)


@examples(1.5)
@given(questions_and_rings(), st.sampled_from([1, 3, 16]), st.sampled_from([1, 4, 16]))
@example((CAUSAL_GROUPS, even_ring(16, 2, order="zigzag")), 3, 4)
def test_tables_hold_each_pair_once(drawn: tuple[Question, Ring], block: int, other: int) -> None:
    tables_hold_each_pair_once(*drawn, block, other)


def test_a_piece_cut_short_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = parts_module._pieces
    monkeypatch.setattr(parts_module, "_pieces", lambda *given: original(*given)[:1])
    part_table.cache_clear()
    ring = Ring((5, 11), order=tuple(range(0, 16, 2)) + tuple(range(15, 0, -2)))
    with pytest.raises(AssertionError, match="are missing"):
        tables_hold_each_pair_once(CAUSAL_GROUPS, ring, 4, 4)
    part_table.cache_clear()


def own_rows_are_the_pairs_of_a_shard(question: Question, layout: Layout) -> bool:
    """Whether ranks have sequences of their own; these must hold just the ranks' local pairs."""
    problem = problem_of(question)
    every_head = tuple(range(question.kv_heads))
    some = False
    for rank in range(layout.ring_size):
        own = own_problem(problem, layout, rank)
        if own is None:
            continue
        some = True
        plan = plan_rank(problem, layout, rank)
        local = pairs_of(problem, plan.local_runs(), plan.queries, plan.keys, every_head)
        alone = plan_rank(own, Layout((own.n,)), 0)
        shard = pairs_of(own, alone.local_runs(), alone.queries, alone.keys, every_head)
        begin = int(plan.queries.positions[0])
        moved = Counter(
            {(i, h, p + begin, k + begin): count for (i, h, p, k), count in shard.items()}
        )
        require_same_pairs(moved, local)
    return some


@examples(2)
@given(questions(), st.integers(1, 4), st.data())
def test_own_rows_hold_the_pairs_of_the_shard(
    question: Question, size: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.integers(0, question.n), label="cut") for _ in range(size - 1))
    edges = [0, *cuts, question.n]
    lengths = tuple(b - a for a, b in pairwise(edges))
    own_rows_are_the_pairs_of_a_shard(question, Layout(lengths))


@pytest.mark.parametrize(
    ("branches", "lengths", "bounds", "alone"),
    [
        (((4, 1), (8, 2)), (8, 8), None, True),
        # All of a shard in one segment that begins at a multiple of r in it.
        (((4, 1), (16, 2)), (8, 8), None, True),
        (((4, 1), (16, 3)), (8, 8), None, False),
        # A shard begins inside a segment and leaves it.
        (((6, 1), (12, 2)), (8, 8), None, False),
        (((4, 1),), (8, 0, 8), None, False),
        (((4, 1),), (8, 8), (0, 4, 16), True),
        (((4, 1),), (8, 8), (0, 6, 16), False),
        (((4, 1),), (8, 8), (0, 8, 10, 16), True),
        (((16, 2),), (8, 8), (0, 10, 16), False),
    ],
)
def test_which_ranks_have_sequences_of_their_own(
    branches: tuple[tuple[int, int], ...],
    lengths: tuple[int, ...],
    bounds: tuple[int, ...] | None,
    alone: bool,
) -> None:
    question = Question(Pattern(branches), 16, 2, 1, is_causal=True, cu_seqlens=bounds)
    layout = Layout(lengths)
    assert bool(own_problems(problem_of(question), layout)) is alone
    assert own_rows_are_the_pairs_of_a_shard(question, layout)


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("rate", [4, 8])
def test_rows_that_do_not_step_evenly_fill_tiles(rate: int, side: Side) -> None:
    """Rows of the first branch alone step 1, 1, 2 for the rates 1 and 4: three rows, if not cut."""
    pattern = DilationPattern.longnet([512, 512 * rate], [1, rate])
    problem = Problem(pattern, 4 * 512 * rate, 2, 2, is_causal=True)
    plan = plan_rank(problem, make_layout(problem.n, 2, "zigzag"), 0)
    table = part_table(problem, (plan.local_runs(),), side, 32, 16)
    assert table.tiles[table.programs[:, 2], 2].mean() > 24
