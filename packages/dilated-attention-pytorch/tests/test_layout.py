"""Positions of the ranks' rows: a permutation for every order; zigzag pairs front with back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_pytorch import positions, shard, unshard
from dilated_attention_pytorch.layout import even_lengths, make_layout

LENGTHS = [(3, 3, 3), (5, 0, 4), (1, 7, 1), (9, 0, 0)]
ORDERS = ["contiguous", "zigzag", (8, 0, 3, 1, 7, 2, 6, 5, 4)]


@pytest.mark.parametrize("order", ORDERS, ids=["contiguous", "zigzag", "map"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_positions_are_a_permutation(
    order: str | tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    layout = make_layout(9, 3, order, lengths)
    rows = [layout.positions(rank) for rank in range(3)]
    assert [len(x) for x in rows] == list(lengths)
    assert sorted(np.concatenate(rows).tolist()) == list(range(9))


def test_orders() -> None:
    assert make_layout(8, 2).positions(1).tolist() == [4, 5, 6, 7]
    zigzag = make_layout(8, 2, "zigzag")
    assert zigzag.positions(0).tolist() == [0, 1, 6, 7]
    assert zigzag.positions(1).tolist() == [2, 3, 4, 5]
    mapped = make_layout(4, 2, [3, 0, 2, 1], [1, 3])
    assert mapped.positions(1).tolist() == [0, 2, 1]


@pytest.mark.parametrize(("n", "size"), [(0, 3), (1, 4), (10, 4), (8, 8), (7, 1)])
def test_even_lengths(n: int, size: int) -> None:
    lengths = even_lengths(n, size)
    assert sum(lengths) == n
    assert max(lengths) - min(lengths) <= 1
    assert list(lengths) == sorted(lengths, reverse=True)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("order", ORDERS, ids=["contiguous", "zigzag", "map"])
def test_unshard_is_the_inverse_of_shard(order: str | tuple[int, ...], dim: int) -> None:
    x = torch.randn(9, 9, 9, requires_grad=True)
    options: dict[str, Any] = {"order": order, "shard_lengths": (1, 7, 1), "dim": dim}
    shards = [shard(x, ring_size=3, rank=rank, **options) for rank in range(3)]
    rows = positions(9, ring_size=3, rank=1, order=order, shard_lengths=(1, 7, 1))
    assert torch.equal(shards[1], x.index_select(dim, rows))
    whole = unshard(shards, **options)
    assert torch.equal(whole, x)
    weights = torch.randn(9, 9, 9)
    (gradient,) = torch.autograd.grad((whole * weights).sum(), x)
    assert torch.equal(gradient, weights)
