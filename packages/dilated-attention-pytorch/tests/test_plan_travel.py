"""The closed forms of what travels and of the pairs equal a count of the schedule's rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dilated_attention_pytorch import DilationPattern, cost
from dilated_attention_pytorch.layout import Layout, make_layout
from dilated_attention_pytorch.plan import NVLINK, Call
from dilated_attention_pytorch.plan.hardware import GPUS
from dilated_attention_pytorch.plan.planning import plan_ring
from dilated_attention_pytorch.plan.travel import leaving, likely_ranks, received, sent
from dilated_attention_pytorch.schedule import Problem, key_classes
from dilated_attention_pytorch.schedule.balance import pairs_by_rank
from dilated_attention_pytorch.schedule.messages import message


def counted(problem: Problem, layout: Layout, source: int, target: int) -> int:
    """Row-heads of the message that the ring sends."""
    if source == target:
        return 0
    rows = message(problem, layout, source, target).rows
    return sum(len(r) * len(c.heads) for r, c in zip(rows, key_classes(problem), strict=True))


def random_cases(count: int) -> list[tuple[Problem, Layout]]:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        branches = int(draw.integers(1, 4))
        pattern = DilationPattern.longnet(
            draw.integers(1, 80, branches).tolist(), draw.integers(1, 9, branches).tolist()
        )
        group, groups = int(draw.integers(1, 3)), int(draw.integers(1, 4))
        n, size = int(draw.integers(1, 70)), int(draw.integers(1, 7))
        problem = Problem(pattern, n, group * groups, groups, bool(draw.integers(2)))
        cuts = [0, *sorted(draw.integers(0, n + 1, size - 1).tolist()), n]
        lengths = np.diff(cuts).tolist() if draw.integers(2) else None
        found.append((problem, make_layout(n, size, shard_lengths=lengths)))
    return found


@pytest.mark.parametrize(("problem", "layout"), random_cases(150))
def test_rows_between_any_two_ranks_equal_the_schedules(problem: Problem, layout: Layout) -> None:
    ranks = range(layout.ring_size)
    for rank in ranks:
        into = [counted(problem, layout, other, rank) for other in ranks]
        out = [counted(problem, layout, rank, other) for other in ranks]
        assert received(problem, layout, rank).tolist() == into
        assert sent(problem, layout, rank).tolist() == out


@pytest.mark.parametrize(("problem", "layout"), random_cases(150))
def test_rows_that_leave_a_rank_are_counted_once(problem: Problem, layout: Layout) -> None:
    for rank in range(layout.ring_size):
        of_class: list[set[int]] = [set() for _ in key_classes(problem)]
        for target in range(layout.ring_size):
            if target != rank:
                rows = message(problem, layout, rank, target).rows
                for known, more in zip(of_class, rows, strict=True):
                    known.update(more.tolist())
        classes = zip(of_class, key_classes(problem), strict=True)
        assert leaving(problem, layout, rank) == sum(len(x) * len(c.heads) for x, c in classes)


@pytest.mark.parametrize(("problem", "layout"), random_cases(40))
def test_pairs_before_a_position_add_up(problem: Problem, layout: Layout) -> None:
    below = cost.pairs_below(problem, [0, *itertools.accumulate(layout.lengths)])
    pairs = [after - before for before, after in itertools.pairwise(below)]
    assert pairs == pairs_by_rank(problem, layout).tolist()
    assert sum(pairs) == cost.visible_pairs(problem)


@pytest.mark.parametrize("causal", [False, True])
def test_pairs_beyond_64_bits_are_counted(causal: bool) -> None:
    n = 1 << 33
    problem = Problem(DilationPattern.longnet([n, 2048], [1, 3]), n, 4, 4, causal)
    assert cost.pairs_below(problem, [n]) == [cost.visible_pairs(problem)]
    assert cost.visible_pairs(problem) > 1 << 64


def test_pairs_of_packed_documents_are_refused() -> None:
    problem = Problem(DilationPattern.longnet([4], [1]), 8, 1, 1, cu_seqlens=(0, 3, 8))
    with pytest.raises(ValueError, match="one document"):
        cost.pairs_below(problem, [8])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_bytes_of_a_plan_are_those_of_the_counted_traffic(
    size: int, dtype: str, causal: bool
) -> None:
    pattern = DilationPattern.longnet([30, 64, 200], [1, 4, 10])
    call = Call(pattern, 200, 4, 2, 8, dtype=dtype, batch=3, is_causal=causal)
    found = plan_ring(call, size, GPUS["h200"], NVLINK)
    layout = make_layout(200, size)
    traffic = [
        cost.rank_traffic(
            call.problem,
            layout,
            rank,
            replicated=False,
            batch=3,
            head_dim=8,
            itemsize=call.itemsize,
        )
        for rank in range(size)
    ]
    assert found.ranks == size
    assert found.sent.forward == max(one.forward for one in traffic)
    assert found.sent.backward == max(one.backward for one in traffic)
    pairs = itertools.product(range(size), repeat=2)
    largest = max(counted(call.problem, layout, a, b) for a, b in pairs)
    assert found.per_link.forward == largest * 2 * 3 * 8 * call.itemsize
    pairs_most = int(pairs_by_rank(call.problem, layout).max())
    assert found.flops == (4 * 3 * 8 * pairs_most, 4 * 3 * 8 * pairs_most * 5 // 2)


@pytest.mark.parametrize("causal", [False, True])
def test_of_many_ranks_the_busiest_are_looked_at(causal: bool) -> None:
    """On these rings the chosen ranks hold the busiest sender and receiver of all."""
    for segments, rates in (((16, 60, 256), (1, 3, 8)), ((1000,), (5,)), ((24, 100), (2, 4))):
        problem = Problem(DilationPattern.longnet(segments, rates), 1000, 4, 4, causal)
        layout = make_layout(1000, 40)
        chosen = likely_ranks(problem, layout, 16)
        assert len(chosen) <= 16
        for count in (received, sent):
            most = max(int(count(problem, layout, rank).sum()) for rank in range(40))
            seen = max(int(count(problem, layout, rank).sum()) for rank in chosen)
            assert seen >= 0.98 * most


@pytest.mark.parametrize(("size", "ranks"), [(100, 100), (257, 64)])
def test_every_rank_is_looked_at_up_to_256_ranks(size: int, ranks: int) -> None:
    call = Call(DilationPattern.longnet([64, 512], [1, 4]), 600, 2, 2, 8)
    found = plan_ring(call, size, GPUS["h200"], NVLINK).ranks
    assert found == ranks if ranks == size else found <= ranks
