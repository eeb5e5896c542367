"""Times of a ring: launches counted in its tables, estimated where these are large, and waits."""

from __future__ import annotations

import json
import time
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import ring_kernels

from dilated_attention_pytorch import DilationPattern, cost, explain
from dilated_attention_pytorch.bench.cases import Case
from dilated_attention_pytorch.kernels.gluon import MOST_VIEWS
from dilated_attention_pytorch.kernels.gluon import blocks as hopper
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.plan import GPUS, NVLINK, Call, Link, Links, tiles
from dilated_attention_pytorch.plan.planning import plan_ring
from dilated_attention_pytorch.plan.ring_launches import (
    Busiest,
    Group,
    Launches,
    counted,
    estimated,
    finished,
    own_rows,
)
from dilated_attention_pytorch.plan.travel import received, sent
from dilated_attention_pytorch.ring.tiled import tiled_plan
from dilated_attention_pytorch.schedule import Problem, plan_rank
from dilated_attention_pytorch.schedule.own import own_problem

ROOT = Path(__file__).parents[3]
LIMIT = 0.15
H200 = GPUS["h200"]
# Of processor time, on one core of a small machine.
SECONDS = 30


def ladder(steps: int) -> DilationPattern:
    return DilationPattern.longnet(
        [2048 << i for i in range(steps)], [1 << i for i in range(steps)]
    )


DENSE = DilationPattern.longnet([1 << 16], [1])
# Some tiles wait for rows, and all do.
WAITS = Call(ladder(7), 1 << 17, 4, 4, 128)
ADDS = Call(DENSE, 1 << 16, 2, 1, 64, is_causal=True)


def busiest_of(call: Call, size: int) -> Busiest:
    layout = make_layout(call.n, size)
    below = cost.pairs_below(call.problem, (0, *accumulate(layout.lengths)))
    pairs = [after - before for before, after in pairwise(below)]
    rank = int(np.argmax(pairs))
    come, go = (count(call.problem, layout, rank) for count in (received, sent))
    return Busiest(rank, pairs[rank], int(max(come.sum(), go.sum())), int((come > 0).sum()))


# A case takes 5 s or more to count, so the default suite has one.
@pytest.mark.parametrize(
    ("case", "order"),
    [
        pytest.param(case, order, marks=() if "up to n, causal" in case.name else pytest.mark.slow)
        for case, order, _ in ring_kernels.CASES
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_kernels_of_all_ranks_are_told_within_fifteen_percent(case: Case, order: str) -> None:
    """The rates come from one GPU without a ring."""
    path = ROOT / "benchmarks" / "results" / "ring_kernels.json"
    measured = {one["case"]: one for one in json.loads(path.read_text("utf-8"))["results"]}
    heads = case.heads, case.heads, case.head_dim
    call = Call(case.pattern, case.n, *heads, is_causal=case.is_causal)
    rings = {int(size): found for size, found in measured[case.name]["rings"].items()}
    assert len(rings) >= 2
    for size in (size for size in rings if size > 1):
        layout = make_layout(case.n, size, order)
        told = dict.fromkeys(tiles.DIRECTIONS, 0.0)
        for rank in range(size):
            launches = counted(call, layout, rank)
            assert launches is not None
            for direction in tiles.DIRECTIONS:
                told[direction] += launches[direction].kernels
        for direction in tiles.DIRECTIONS:
            ratio = told[direction] * 1e3 / rings[size]["ms"][direction]
            assert abs(ratio - 1) <= LIMIT, (size, direction, ratio)


@pytest.mark.parametrize("call", [WAITS, ADDS], ids=["waits", "adds"])
@pytest.mark.parametrize("size", [2, 4])
def test_blocks_of_a_ring_are_those_that_it_executes(call: Call, size: int) -> None:
    plan = plan_rank(call.problem, make_layout(call.n, size), size - 1)
    forward, backward = hopper.forward_blocks(call.head_dim), hopper.backward_blocks(call.head_dim)
    tiled = tiled_plan(plan, hopper.HALF, forward.block, backward.block, MOST_VIEWS)
    assert tiled is not None
    assert (tiled.forward.late is None) == (call is ADDS)
    tables = [
        (forward.block, (tiled.forward.own, tiled.forward.late, *tiled.forward.groups)),
        (backward.block, (tiled.backward.own, tiled.backward.late, *tiled.backward.groups)),
        (backward.block, tiled.received),
    ]
    seen = 0
    for block, some in tables:
        for table in some:
            if table is not None:
                blocks = tiles.blocks_of_table(table)
                count = int(blocks.plain.sum() + blocks.masked.sum())
                assert count * hopper.HALF * block == table.executed
                seen += 1
    assert seen >= 5


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 4, 8])
@pytest.mark.parametrize(
    "call",
    [
        Call(ladder(7), 1 << 17, 16, 16, 128),
        Call(ladder(7), 1 << 17, 16, 16, 64, is_causal=True),
        Call(ladder(5), 1 << 17, 16, 4, 64),
        Call(DENSE, 1 << 16, 8, 2, 128, is_causal=True),
    ],
    ids=["to n", "to n, causal", "ladder", "dense, causal"],
)
def test_estimates_agree_with_what_is_counted(call: Call, size: int) -> None:
    busiest, layout = busiest_of(call, size), make_layout(call.n, size)
    found, known = estimated(call, layout, busiest), counted(call, layout, busiest.rank)
    assert found is not None
    assert known is not None
    for direction in tiles.DIRECTIONS:
        mine, exact = found[direction], known[direction]
        assert mine.kernels == pytest.approx(exact.kernels, rel=LIMIT)
        # Of each exchange the way with more rows counts, and here of all exchanges together.
        assert sum(group.rows for group in mine.groups) <= sum(group.rows for group in exact.groups)


def test_a_thousand_million_rows_on_timed_kernels_take_seconds() -> None:
    began = time.process_time()
    call = Call(ladder(6), 1 << 30, 16, 4, 128, is_causal=True)
    step = plan_ring(call, 4096, H200, NVLINK).step
    assert time.process_time() - began < SECONDS
    assert step is not None
    assert not step.is_bound
    half = plan_ring(call, 2048, H200, NVLINK).step
    assert half is not None
    assert step.forward == pytest.approx(half.forward / 2, rel=0.01)


@pytest.mark.parametrize(
    ("own", "groups", "link", "gradients", "expected"),
    [
        # The exchange is hidden by the own tiles, or they by it.
        (5.0, [2.0], 3.0, None, 7.0),
        (2.0, [2.0], 3.0, None, 5.0),
        # The second leaves after the own tiles, and travels while the first group is computed.
        (5.0, [2.0, 2.0], 3.0, None, 10.0),
        (5.0, [4.0, 2.0], 3.0, None, 11.0),
        # Nothing hides the way home of the last gradients.
        (5.0, [2.0], 3.0, 4.0, 11.0),
        # The first come home after the second group's rows came and while it is computed.
        (5.0, [4.0, 9.0], 3.0, 4.0, 22.0),
        (5.0, [4.0, 2.0], 3.0, 4.0, 17.0),
    ],
)
def test_a_rank_waits_for_what_the_schedule_does_not_hide(
    own: float, groups: list[float], link: float, gradients: float | None, expected: float
) -> None:
    launches = Launches(own, tuple(Group(1, 1, seconds) for seconds in groups))
    home = None if gradients is None else lambda _: gradients
    assert finished(launches, lambda _: link, home) == expected


@pytest.mark.parametrize("call", [WAITS, ADDS], ids=["waits", "adds"])
def test_slow_rows_are_waited_for_and_own_tiles_run_meanwhile(call: Call) -> None:
    def step_at(bandwidth: float) -> tuple[float, float, float]:
        links = Links(Link(0.0, bandwidth), None, "test")
        found = plan_ring(call, 2, H200, links)
        assert found.step is not None
        rows = max(found.sent.forward, found.received.forward) / bandwidth
        return found.step.forward, found.step.exposed_forward, rows

    forward, waiting, _ = step_at(1e15)
    assert waiting == 0
    layout = make_layout(call.n, 2)
    launches = counted(call, layout, busiest_of(call, 2).rank)
    assert launches is not None
    own = launches["forward"].own
    assert 0 < own < forward
    again, waiting, rows = step_at(1e6)
    assert again == forward
    assert waiting == pytest.approx(rows - own)


def test_what_no_timed_kernel_takes_is_a_lower_bound() -> None:
    """A common multiple of the rates that no case has, shards that a segment crosses unevenly, and
    rows that fill no block."""
    wide = DilationPattern.longnet([1024, 1 << 17], [1, 128])
    crossed = DilationPattern.longnet([3000, 1 << 17], [1, 2])
    for pattern, size in ((wide, 4), (crossed, 4), (ladder(7), 64)):
        step = plan_ring(Call(pattern, 1 << 17, 4, 4, 64), size, H200, NVLINK).step
        assert step is not None
        assert step.is_bound
    few = plan_ring(Call(ladder(10), 1 << 20, 4, 4, 64), 512, H200, NVLINK).step
    assert few is not None
    assert few.is_bound


@pytest.mark.parametrize("n", [96, 100, 128])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("rates", [(1, 1), (1, 2), (2, 4), (1, 3)])
@pytest.mark.parametrize("lengths", [(8, 32), (12, 48), (24, 96), (32, 128)])
def test_own_rows_are_those_of_the_schedule(
    n: int, size: int, rates: tuple[int, int], lengths: tuple[int, int]
) -> None:
    problem = Problem(DilationPattern.longnet(lengths, rates), n, 4, 4)
    layout = make_layout(n, size)
    for rank in range(size):
        begin = sum(layout.lengths[:rank])
        found = own_rows(problem, begin, layout.lengths[rank])
        assert found == own_problem(problem, layout, rank)


@pytest.mark.parametrize(
    "links",
    [
        NVLINK,
        # What travels at once is larger than 1 MB, and gradients larger still.
        Links(Link(0.0, 2e9), Link(1e-3, 4e9), "test"),
        Links(Link(0.0, 2e9), Link(1.0, 4e9), "test"),
    ],
)
def test_the_ways_are_those_that_the_ring_takes(links: Links) -> None:
    call = Call(ladder(7), 1 << 17, 4, 4, 128)
    found = plan_ring(call, 4, H200, links)
    text = explain(
        call.pattern,
        call.n,
        num_heads=4,
        head_dim=128,
        dtype=torch.bfloat16,
        device="cuda",
        ring_size=4,
        backend="eager",
        links=links,
    )
    assert [way.exchange.label for way in found.transports] == ["key_value", "gradient"]
    for way in found.transports:
        assert (
            f"{way.exchange.label}: {way.chosen}; at most {way.exchange.messages} messages of "
            f"{way.exchange.nbytes:,} bytes in all at once: p2p {way.p2p * 1e6:,.1f} us"
        ) in text
        if links.symmetric is not None:
            assert way.symmetric is not None
            assert f"symmetric {way.symmetric * 1e6:,.1f} us" in text
    assert plan_ring(call, 1, H200, links).transports == ()


def test_time_is_that_of_the_way_taken() -> None:
    slow, fast = Link(0.0, 1e6), Link(0.0, 1e15)
    waits = [
        plan_ring(WAITS, 2, H200, links).step
        for links in (Links(slow, fast, "test"), Links(fast, None, "test"))
    ]
    assert waits[0] == waits[1]
    assert waits[0] is not None
    assert waits[0].exposed_backward == pytest.approx(0, abs=1e-6)
