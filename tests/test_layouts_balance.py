"""Causal work over the ranks: counted as the plan does it, and at most 5 % over the mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import causal_balance

from dilated_attention_oracle import Pattern
from dilated_attention_pytorch import (
    DilationPattern,
    cost,
    dilated_attention,
    explain,
    positions,
    ring_dilated_attention,
    shard,
    unshard,
)
from dilated_attention_pytorch.functional import balanced_order
from dilated_attention_pytorch.layout import Layout, make_layout
from dilated_attention_pytorch.schedule import Problem, Run, plan_rank
from dilated_attention_pytorch.schedule.balance import (
    BALANCE_LIMIT,
    balanced_map,
    excess,
    pairs_by_position,
    pairs_by_rank,
)
from support.ring_calls import Ring, equals_oracle, fixed_case

REPORT = causal_balance.load()
ROWS = [(case, size) for case in causal_balance.CASES for size in causal_balance.RING_SIZES]


def pairs_of_run(run: Run, *, is_causal: bool) -> int:
    """Pairs of one run, one by one."""
    query, key = run.query_x.asarray(), run.key_x.asarray()
    seen = key[None] <= query[:, None] if is_causal else np.ones((len(query), len(key)))
    return int(seen.sum()) * len(run.heads.query)


def planned_pairs(problem: Problem, layout: Layout, rank: int) -> int:
    """Pairs of all runs of a rank's plan, over its own keys and over those that it receives."""
    plan = plan_rank(problem, layout, rank)
    found = list(plan.local_runs())
    for group in range(len(plan.groups)):
        if plan.received(group):
            found += [run for part in plan.remote_runs(group) for run in part]
    return sum(pairs_of_run(run, is_causal=problem.is_causal) for run in found)


@pytest.mark.parametrize("order", ["contiguous", "zigzag", "balanced"])
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("documents", [None, (0, 5, 5, 40, 77)], ids=["whole", "documents"])
def test_the_pairs_of_a_rank_are_those_of_its_plan(
    order: str, is_causal: bool, documents: tuple[int, ...] | None
) -> None:
    pattern = DilationPattern.longnet([7, 16, 100], [2, 3, 5])
    problem = Problem(pattern, 77, 4, 2, is_causal, documents)
    layout = causal_balance.layout_of(problem, 5, order)
    planned = [planned_pairs(problem, layout, rank) for rank in range(5)]
    assert pairs_by_rank(problem, layout).tolist() == planned
    assert pairs_by_position(problem).sum() == sum(planned) == cost.visible_pairs(problem)


def test_the_committed_excesses_are_those_of_the_schedule() -> None:
    assert len(REPORT["rows"]) == len(ROWS)
    for row, (case, size) in zip(REPORT["rows"], ROWS, strict=True):
        assert (row["case"], row["n"], row["ring_size"]) == (case.name, case.problem.n, size)
        for order in causal_balance.ORDERS:
            layout = causal_balance.layout_of(case.problem, size, order)
            assert row[order]["excess"] == excess(pairs_by_rank(case.problem, layout)), (row, order)


def test_contiguous_shards_are_unbalanced_and_balanced_ones_are_not() -> None:
    """The claim of the guide; zigzag keeps the limit where segments divide the sequence."""
    found: dict[str, list[float]] = {
        order: [row[order]["excess"] for row in REPORT["rows"]] for order in causal_balance.ORDERS
    }
    assert max(found["balanced"]) <= BALANCE_LIMIT
    assert max(found["contiguous"]) > 0.9
    assert max(found["zigzag"]) > BALANCE_LIMIT
    for row, (case, _) in zip(REPORT["rows"], ROWS, strict=True):
        segments = [branch.segment_length for branch in case.problem.pattern.branches]
        if all(case.problem.n % w == 0 for w in segments):
            assert row["zigzag"]["excess"] <= BALANCE_LIMIT
        if row["contiguous"]["excess"] <= BALANCE_LIMIT:
            assert row["balanced"] == row["contiguous"], "moved rows for nothing"


def test_the_committed_rows_are_those_that_travel() -> None:
    problem = Problem(DilationPattern.longnet([16, 64, 200], [1, 4, 9]), 200, 4, 2, is_causal=True)
    for order in causal_balance.ORDERS:
        layout = causal_balance.layout_of(problem, 5, order)
        shape: dict[str, Any] = {"replicated": False, "batch": 1, "head_dim": 1, "itemsize": 1}
        sent = [cost.rank_traffic(problem, layout, rank, **shape).forward for rank in range(5)]
        assert [2 * rows for rows in causal_balance.sent_rows(problem, layout)] == sent
    dense = ROWS.index((causal_balance.CASES[-1], 8))
    assert causal_balance.measure(*ROWS[dense]) == REPORT["rows"][dense]


def test_the_page_is_that_of_the_result(tmp_path: Path) -> None:
    page = causal_balance.PAGE.read_text(encoding="utf-8")
    message = "run python -m benchmarks.causal_balance"
    assert causal_balance.render(page, REPORT) == page, message
    other = json.loads(json.dumps(REPORT))
    other["rows"][0]["zigzag"]["excess"] += 0.01
    assert causal_balance.render(page, other) != page
    with pytest.raises(ValueError, match="the page needs one <!-- causal-balance -->"):
        causal_balance.render(page.replace("<!-- causal-balance -->", ""), REPORT)


@pytest.mark.parametrize("is_causal", [True, False])
def test_packed_documents_are_balanced(is_causal: bool) -> None:
    """A long document is more work than short ones, causal or not."""
    pattern = DilationPattern.longnet([4096], [1])
    documents = (0, 3000, *range(3100, 4097, 166), 4096)
    problem = Problem(pattern, 4096, 2, 2, is_causal, documents)
    order = balanced_order(
        pattern, 4096, num_heads=2, ring_size=8, is_causal=is_causal, cu_seqlens=documents
    )
    assert excess(pairs_by_rank(problem, make_layout(4096, 8))) > BALANCE_LIMIT
    layout = make_layout(4096, 8, order.numpy())
    assert excess(pairs_by_rank(problem, layout)) <= BALANCE_LIMIT


@pytest.mark.parametrize(("n", "size"), [(0, 3), (1, 4), (2, 5), (9, 4), (23, 23), (10, 1)])
def test_a_balanced_order_of_few_rows_is_a_permutation(n: int, size: int) -> None:
    pattern = DilationPattern.longnet([5, 40], [1, 3])
    rows, found = balanced_map(Problem(pattern, n, 2, 2, is_causal=True), size)
    assert sorted(rows.tolist()) == list(range(n))
    layout = make_layout(n, size, rows)
    assert found == excess(pairs_by_rank(Problem(pattern, n, 2, 2, is_causal=True), layout))


def test_a_ring_in_balanced_order_computes_the_same() -> None:
    n, size = 61, 4
    case = fixed_case(n, Pattern(((12, 1), (25, 2), (61, 3))), is_causal=True)
    pattern = DilationPattern.longnet([12, 25, 61], [1, 2, 3])
    order = balanced_order(pattern, n, num_heads=4, ring_size=size)
    assert order.tolist() != list(range(n)), "this case should need another order"
    lengths = tuple(n // size + (rank < n % size) for rank in range(size))
    equals_oracle(case, Ring(lengths, order=tuple(order.tolist())))


def test_shards_of_a_balanced_order_come_together_again() -> None:
    pattern = DilationPattern.longnet([64], [1])
    order = balanced_order(pattern, 64, num_heads=1, ring_size=4)
    x = torch.randn(1, 64, 1, 3)
    shards = [shard(x, ring_size=4, rank=rank, order=order) for rank in range(4)]
    rows = positions(64, ring_size=4, rank=2, order=order)
    assert torch.equal(shards[2], x[:, rows])
    assert torch.equal(unshard(shards, order=order), x)
    ring = ring_dilated_attention(x, x, x, pattern, is_causal=True, ring_size=4, order=order)
    torch.testing.assert_close(ring, dilated_attention(x, x, x, pattern, is_causal=True))


def test_explain_says_how_balanced_a_call_is() -> None:
    pattern = DilationPattern.longnet([64], [1])
    options: dict[str, Any] = {"num_heads": 2, "head_dim": 4, "is_causal": True, "ring_size": 4}
    worst = explain(pattern, 64, **options).splitlines()[-1]
    assert worst == (
        "balance    busiest rank scores 73.8% more pairs than the mean; "
        "with order=balanced_order(…) 0.0%"
    )
    best = explain(pattern, 64, order="zigzag", **options).splitlines()[-1]
    assert best == "balance    busiest rank scores 0.0% more pairs than the mean"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n": -1}, ValueError, "n must be at least 0"),
        ({"n": 8.0}, TypeError, "n must be an int"),
        ({"ring_size": 0}, ValueError, "ring_size must be at least 1"),
        ({"is_causal": 1}, TypeError, "is_causal must be a bool"),
        ({"cu_seqlens": [0, 7]}, ValueError, "cu_seqlens must run from 0"),
        ({"num_heads": 0}, ValueError, "num_heads must be positive"),
        ({"pattern": [(8, 1)]}, TypeError, "pattern must be a DilationPattern"),
    ],
)
def test_a_wrong_argument_is_refused(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    pattern = DilationPattern.longnet([8], [1])
    given = {"pattern": pattern, "n": 8, "num_heads": 1, "ring_size": 2} | change
    with pytest.raises(error, match=words):
        balanced_order(given.pop("pattern"), given.pop("n"), **given)


def test_an_index_map_is_checked() -> None:
    for rows in ([0, 0, 1], [0, 1, 3], [-1, 0, 1], [0, 1]):
        with pytest.raises(ValueError, match=r"a permutation of 0\.\.2"):
            make_layout(3, 2, rows)
    with pytest.raises(TypeError, match="int64 positions"):
        make_layout(3, 2, np.array([0.0, 1.0, 2.0]))  # type: ignore[arg-type]
