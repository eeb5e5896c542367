"""A rank's memory is a constant times n / R: committed measurements, and what gathers fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmarks import memory_ladders
from torch import Tensor

from dilated_attention_pytorch import DilationPattern, cost, ring_dilated_attention
from dilated_attention_pytorch.cli.memory_meter import MemoryMeter
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.plan.memory import ring_rank
from dilated_attention_pytorch.schedule import Problem

REPORT = memory_ladders.load()
ROWS = {(row["ladder"], row["ring_size"]): row for row in REPORT["rows"]}


def test_the_results_are_of_both_ladders_and_every_ring() -> None:
    assert list(ROWS) == [
        (ladder, size) for ladder in memory_ladders.LADDERS for size in memory_ladders.RING_SIZES
    ]
    assert REPORT["shares"] == memory_ladders.SHARES
    assert REPORT["tile_bytes"] == memory_ladders.tile_bytes()


@pytest.mark.parametrize("key", ROWS, ids=str)
def test_no_rank_exceeds_the_constant_and_the_plan_tells_its_peak(key: tuple[str, int]) -> None:
    row, size = ROWS[key], key[1]
    for layout in memory_ladders.SHARES:
        assert row[layout] <= memory_ladders.limit(layout, size)
    n, heads = memory_ladders.N, memory_ladders.HEADS
    problem = Problem(memory_ladders.LADDERS[key[0]], n, heads, heads)
    shape = {"batch": 1, "head_dim": memory_ladders.HEAD_DIM, "itemsize": 4}
    arguments = problem, make_layout(n, size), row["rank"]
    assert row["planned_sharded"] == ring_rank(*arguments, **shape, keep=False).peak
    kept = ring_rank(problem, make_layout(n, size), row["rank_kept"], **shape)
    assert row["planned_sharded_kept"] == kept.peak
    for name in ("sharded", "sharded_kept"):
        assert abs(row[f"planned_{name}"] / row[name] - 1) < 0.01
    assert row["closed_form_sharded"] == cost.rank_memory(*arguments, **shape)
    assert row["closed_form_replicated"] == cost.replicated_memory(*arguments, **shape)
    assert 0 <= row["replicated"] - row["closed_form_replicated"] < 0.02 * row["replicated"]


def test_one_rank_alone_holds_what_it_holds_among_processes() -> None:
    assert {row["ring_size"] for row in REPORT["processes"]} == set(memory_ladders.PROCESSES)
    for real in REPORT["processes"]:
        row = ROWS[real["ladder"], real["ring_size"]]
        for layout in memory_ladders.LAYOUTS:
            assert real[layout][row["rank"]] == row[layout]
            assert max(real[layout]) == row[layout], "it is the rank that holds most"
        assert real["sharded_kept"][row["rank_kept"]] == row["sharded_kept"]


def test_the_page_is_that_of_the_results() -> None:
    page = memory_ladders.PAGE.read_text(encoding="utf-8")
    message = "run python -m benchmarks.memory_ladders"
    assert memory_ladders.render(page, REPORT) == page, message
    other = {**REPORT, "rows": REPORT["rows"][1:]}
    assert memory_ladders.render(page, other) != page
    with pytest.raises(ValueError, match="the page needs one"):
        memory_ladders.render(page.replace("<!-- memory-ladders -->", ""), REPORT)


N, SIZE = 4096, 16
LADDER = DilationPattern.longnet([128 << i for i in range(6)], [1 << i for i in range(6)])


@pytest.fixture(autouse=True)
def small_tiles(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiles vanish beside the rows of a sequence that a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        if "layout" in request.fixturenames:
            patch.setattr(eager, "BLOCK", 32)
        yield


def gathers(query: Tensor, key: Tensor, value: Tensor, pattern: Any, **options: Any) -> Tensor:
    """Planted: every rank gathers all keys and values, and keeps them until backward."""
    comm = ProcessGroupCommunicator(options["group"])
    whole = [torch.cat(comm.all_gather(x.detach()), 1) for x in (key, value)]
    out: Tensor = ring_dilated_attention(query, key, value, pattern, **options)
    unused = sum(x.flatten()[0] * 0 for x in whole)
    out.register_hook(lambda gradient: gradient + unused * whole[0].numel() * whole[1].numel())
    return out


@pytest.mark.parametrize("layout", memory_ladders.LAYOUTS)
@pytest.mark.parametrize("rank", [0, 7, SIZE - 1])
def test_a_rank_stays_within_the_limit(layout: str, rank: int) -> None:
    with memory_ladders.one_rank_of(SIZE, rank) as group:
        peak = memory_ladders.peak(LADDER, layout, group, n=N)
    assert peak <= memory_ladders.limit(layout, SIZE, N)


# Shards of several tiles: these do not hide the buffers.
OTHER_SIZE = 4
OTHER_CALLS: dict[str, tuple[DilationPattern, torch.dtype, dict[str, Any]]] = {
    "bfloat16": (LADDER, torch.bfloat16, {}),
    "causal, more rows at once": (LADDER, torch.float32, {"is_causal": True, "buffer_shards": 8}),
    "one rank's rows at a time": (DilationPattern.longnet([N], [1]), torch.float64, {}),
}


@pytest.mark.parametrize("rank", [0, 1, OTHER_SIZE - 1])
@pytest.mark.parametrize("name", OTHER_CALLS)
def test_the_plan_tells_the_second_step_of_other_calls(name: str, rank: int) -> None:
    pattern, dtype, options = OTHER_CALLS[name]
    with (
        memory_ladders.one_rank_of(OTHER_SIZE, rank) as group,
        memory_ladders.workspace(group, keep=True),
        memory_ladders.one_tile_of_each_shape(),
        MemoryMeter() as meter,
    ):
        inputs = [
            torch.ones(1, N // OTHER_SIZE, heads, 16, dtype=dtype, requires_grad=True)
            for heads in (4, 2, 2)
        ]
        for _ in range(2):
            meter.reset_peak()
            out = ring_dilated_attention(*inputs, pattern, group=group, backend="eager", **options)
            gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
            del out, gradients
        held, rest = meter.peak, meter.live - sum(x.nbytes for x in inputs)
    problem = Problem(pattern, N, 4, 2, options.get("is_causal", False))
    planned = ring_rank(
        problem,
        make_layout(N, OTHER_SIZE),
        rank,
        batch=1,
        head_dim=16,
        itemsize=dtype.itemsize,
        buffer_shards=options.get("buffer_shards", 2),
    )
    assert abs(planned.peak / held - 1) < 0.05
    assert abs(planned.kept / rest - 1) < 0.05


@pytest.mark.parametrize("layout", memory_ladders.LAYOUTS)
def test_an_implementation_that_gathers_everything_exceeds_it(layout: str) -> None:
    with memory_ladders.one_rank_of(SIZE, 7) as group:
        peak = memory_ladders.peak(LADDER, layout, group, gathers, n=N)
    assert peak > memory_ladders.limit(layout, SIZE, N)
