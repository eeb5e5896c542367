"""Which transport is done first, and that what all ranks reckon with bounds what any receives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_pytorch import DilationPattern, cost, explain
from dilated_attention_pytorch.cost import Exchange, Link, Links
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem, key_classes, plan_rank

LINKS = Links(Link(10e-6, 100e9, 1e-6), Link(30e-6, 300e9, 5e-6), "a test")


def test_the_faster_one_is_taken_by_latency_messages_and_bandwidth() -> None:
    # 10 us + x / 100 GB/s = 30 us + x / 300 GB/s at x = 3 MB.
    assert cost.fastest(LINKS, Exchange("key_value", 1, 2_900_000)) == "p2p"
    assert cost.fastest(LINKS, Exchange("key_value", 1, 3_100_000)) == "symmetric"
    # Each of six further messages costs 4 us more, which 3.6 MB make up for.
    assert cost.fastest(LINKS, Exchange("key_value", 7, 6_500_000)) == "p2p"
    assert cost.fastest(LINKS, Exchange("key_value", 7, 6_700_000)) == "symmetric"
    assert LINKS.symmetric is not None
    assert LINKS.symmetric.seconds(300e6, 3) == pytest.approx(30e-6 + 10e-6 + 1e-3)


def test_where_there_is_no_symmetric_memory_rows_are_sent() -> None:
    huge = Exchange("gradient", 1, 1 << 40)
    assert cost.fastest(LINKS, huge) == "symmetric"
    assert cost.fastest(replace(LINKS, symmetric=None, refusal="a test"), huge) == "p2p"


def received(problem: Problem, layout: Any, rank: int, batch: int, head_dim: int) -> list[int]:
    """Elements and messages that each group of rounds brings a rank."""
    plan = plan_rank(problem, layout, rank)
    classes = key_classes(problem)
    found = []
    for group in range(len(plan.groups)):
        rows = [
            sum(len(r) * len(c.heads) for r, c in zip(one.rows, classes, strict=True))
            for one in plan.received(group)
        ]
        found.append((2 * batch * head_dim * sum(rows), len(rows)))
    return found


@given(
    st.integers(2, 9),
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["contiguous", "zigzag"]),
    st.integers(20, 300),
)
def test_no_rank_receives_more(
    size: int, branches: list[tuple[int, int]], is_causal: bool, order: str, n: int
) -> None:
    segments, rates = zip(*branches, strict=True)
    problem = Problem(DilationPattern.longnet(segments, rates), n, 4, 2, is_causal)
    layout = make_layout(n, size, order)
    shape: dict[str, Any] = {"batch": 2, "head_dim": 8, "itemsize": 2}
    key_value, gradient = cost.exchanges(problem, layout, replicated=False, **shape)
    for rank in range(size):
        for elements, messages in received(problem, layout, rank, 2, 8):
            assert messages <= key_value.messages == gradient.messages
            assert 2 * elements <= key_value.nbytes
            assert 4 * elements <= gradient.nbytes


def test_a_deterministic_forward_moves_one_message_at_a_time() -> None:
    problem = Problem(DilationPattern.longnet([64, 2048], [1, 64]), 2048, 4, 4)
    arguments: dict[str, Any] = {"replicated": False, "batch": 1, "head_dim": 8, "itemsize": 4}
    layout = make_layout(2048, 4)
    together, gradient = cost.exchanges(problem, layout, **arguments)
    alone, _ = cost.exchanges(problem, layout, deterministic=True, **arguments)
    assert together.messages == gradient.messages == 3
    assert alone == replace(together, messages=1, nbytes=together.nbytes // 3)
    zigzag = make_layout(2048, 4, "zigzag")
    assert cost.exchanges(problem, zigzag, deterministic=True, **arguments) == cost.exchanges(
        problem, zigzag, **arguments
    )


def test_replicated_partials_and_rows_are_bounded_by_a_chunk() -> None:
    problem = Problem(DilationPattern.longnet([64], [1]), 100, 4, 4)
    layout = make_layout(100, 3)
    found = cost.exchanges(problem, layout, replicated=True, batch=2, head_dim=8, itemsize=2)
    rows = 2 * 34 * 4
    assert found == (
        Exchange("partial", 1, rows * 9 * 4),
        Exchange("result", 1, rows * 8 * 2),
    )


def told(**options: Any) -> str:
    pattern = DilationPattern.longnet([2048 << i for i in range(7)], [1 << i for i in range(7)])
    arguments = {"num_heads": 16, "head_dim": 128, "dtype": torch.bfloat16, "ring_size": 4}
    return explain(pattern, 1 << 17, **(arguments | options))


def test_explain_says_which_transport_and_why_not_the_other() -> None:
    text = told(device="cuda", links=LINKS)
    assert "of 3 ranks in one batch: a sparse all-gather" in text
    assert "transport  key_value: symmetric; at most 3 messages" in text
    (line,) = (x for x in text.splitlines() if "gradient" in x)
    nbytes = int(line.split(" messages of ")[1].split(" bytes")[0].replace(",", ""))
    p2p, symmetric = (1e6 * x.seconds(nbytes, 3) for x in (LINKS.p2p, LINKS.symmetric) if x)
    assert line.endswith(f"p2p {p2p:,.1f} us, symmetric {symmetric:,.1f} us")
    assert "(latency and bandwidth: a test)" in text


def test_explain_without_links_says_whose_they_are() -> None:
    text = told(device="cuda")
    assert "transport  key_value: p2p" in text
    assert "no symmetric memory: a ring measures it before its first call" in text
    assert "two H100" in text
    assert "transport  p2p: sends and receives over Gloo" in told()
    assert "transport" not in told(ring_size=1)
    dense = explain(DilationPattern.longnet([512], [1]), 512, num_heads=1, head_dim=8, ring_size=4)
    assert "one rank's at a time, the next under way" in dense
