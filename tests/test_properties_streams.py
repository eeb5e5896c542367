"""Stream tables count every pair of the definition as often as branches hold it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_pytorch.pattern import DilationPattern
from dilated_attention_pytorch.schedule import Problem
from dilated_attention_pytorch.schedule.sharing import shares
from dilated_attention_pytorch.schedule.streams import StreamTable, shortest_range, stream_table
from support.definition import Question
from support.question_strategies import questions
from support.ring_strategies import examples
from support.schedule_checks import problem_of
from support.stream_checks import halves, streamed

# (head, query, key)
Triple = tuple[int, int, int]


def multiplicities(
    problem: Problem, table: StreamTable, block: int, *, keys: bool
) -> Counter[Triple]:
    """How often a kernel that follows the table counts each pair."""
    found: Counter[Triple] = Counter()
    members = problem.num_heads // problem.num_kv_heads if keys else 1
    for head, tile in table.programs.tolist():
        for _, member, at, who, exact, weight, low, high in streamed(table, tile, block):
            for half, own in enumerate(halves(table, tile)):
                if not who >> half & 1:
                    continue
                query, key = (at[None], own[:, None]) if keys else (own[:, None], at[None])
                seen = np.broadcast_to((low <= at) & (at < high), (len(own), len(at)))
                visible = seen & (key <= query) if problem.is_causal else seen
                assert not exact >> half & 1 or visible.all(), (
                    "what is whole is computed without masks"
                )
                query, key = np.broadcast_arrays(query, key)
                for p, k in zip(query[visible], key[visible], strict=True):
                    found[head * members + member, int(p), int(k)] += weight
    return found


def streams_hold_each_pair_once(question: Question, half: int, block: int) -> None:
    problem = problem_of(question)
    wanted: Counter[Triple] = Counter()
    for (_, head, query, key), count in question.pairs().items():
        wanted[head, query, key] += count
    group = problem.num_heads // problem.num_kv_heads
    for keys, heads in ((False, question.heads), (True, question.kv_heads)):
        table = stream_table(problem, half, block, keys=keys)
        assert multiplicities(problem, table, block, keys=keys) == wanted
        written: Counter[tuple[int, int]] = Counter()
        for head, tile in table.programs.tolist():
            start0, rows0, start1, rows1, step = table.tiles[tile, :5].tolist()
            assert 1 <= rows0 <= half
            assert 0 <= rows1 <= half
            written.update((head, start0 + step * i) for i in range(rows0))
            written.update((head, start1 + step * i) for i in range(rows1))
        assert set(written.values()) <= {1}
        every = {(h, p) for h in range(heads) for p in range(question.n)}
        if table.covered:
            assert set(written) == every
        else:
            seen = {(h // (group if keys else 1), k if keys else p) for h, p, k in wanted}
            assert seen <= set(written) < every


@examples(3)
@given(questions(), st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 16]))
def test_streams_hold_each_pair_once(question: Question, half: int, block: int) -> None:
    streams_hold_each_pair_once(question, half, block)


def test_the_row_shift_is_refused() -> None:
    pattern = DilationPattern.torchscale([4], [3], phantom_keys=True, shift_rows=True)
    with pytest.raises(ValueError, match="row shift"):
        stream_table(Problem(pattern, 9, 1, 1), 16, 16)


def test_halves_that_share_segments_share_tiles() -> None:
    """Only the last odd half of some rows in some segments keeps company with another segment's."""
    pattern = DilationPattern.torchscale([64, 360, 1000], [1, 4, 16])
    problem = Problem(pattern, 1000, 16, 16, is_causal=False)
    table = stream_table(problem, 4, 8)
    left: list[tuple[int, ...]] = []
    for head, tile in table.programs.tolist():
        first0, _, first1, rows1, step = table.tiles[tile, :5].tolist()
        keys = []
        for row in (first0, first1):
            key = [head, step]
            for branch, offsets in zip(pattern.branches, problem.offsets, strict=True):
                segment, place = divmod(row, branch.segment_length)
                key.append(segment if place % branch.dilation_rate == offsets[head] else -1)
            keys.append(tuple(key))
        if rows1 and keys[0] != keys[1]:
            left += keys
    assert left
    assert len(left) == len(set(left))


@pytest.mark.parametrize(
    ("segments", "rates", "n"),
    [
        ((32, 90, 256), (1, 2, 8), 300),
        ((40, 256), (1, 4), 300),
        ((32, 64, 128, 256), (1, 2, 4, 8), 256),
        ((36, 72, 144), (1, 2, 6), 290),
    ],
)
def test_shared_keys_are_read_within_their_segments(
    segments: tuple[int, ...], rates: tuple[int, ...], n: int
) -> None:
    """Every row of a block, hidden ones too, is one that the tile's rows meet, or past the end."""
    question = Question(Pattern(tuple(zip(segments, rates, strict=True))), n, 1, 1)
    problem = problem_of(question)
    met = {(query, key) for _, _, query, key in question.pairs()}
    block = shortest_range(problem)
    for keys in (False, True):
        table = stream_table(problem, 8, block, keys=keys)
        for _, tile in table.programs.tolist():
            both = halves(table, tile)
            for _, _, at, who, _, _, _, _ in streamed(table, tile, block):
                own = np.concatenate([x for half, x in enumerate(both) if who >> half & 1])
                # Without causality the pairs are symmetric.
                assert {(p, k) for p in own.tolist() for k in at.tolist()} <= met


@pytest.mark.parametrize("rates", [(1, 2, 4, 8, 16), (1, 2, 4, 6, 12), (1, 8), (2, 6), (1, 3, 5)])
@pytest.mark.parametrize("length", [64, 256, 1024])
@pytest.mark.parametrize("longest", [2, 1 << 20])
def test_sharing_takes_no_more_blocks(rates: tuple[int, ...], length: int, longest: int) -> None:
    """Than branches take that are computed one by one; each key counts as often as they hold it."""
    block = 16
    found = shares(rates, (0,) * len(rates), (1 << len(rates)) - 1, length, longest, block)
    alone = sum(-(-length // (rate * block)) for rate in rates)
    assert sum(-(-length // (share.rate * block)) for share in found) <= alone
    keys = np.arange(math.lcm(*rates))
    held = sum((keys % rate == 0).astype(int) for rate in rates)
    counted = sum((keys % share.rate == share.residue) * share.weight for share in found)
    np.testing.assert_array_equal(counted, held)
    assert all(share.rate <= max(longest, rates[share.leader]) for share in found)
