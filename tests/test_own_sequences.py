"""In a ring a rank's own rows go through kernels for whole sequences where they are one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dilated_attention_oracle.precision import DTYPES
from dilated_attention_pytorch import BackendError, DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.kernels.sdpa import launch as sdpa
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem, RankPlan, own_problem
from support.own_sequences import ALONE, own_case
from support.ring_calls import equals_oracle


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[dict[str, Any]]:
    """Keywords of every call of a module's function."""
    calls: list[dict[str, Any]] = []
    original = getattr(module, name)

    def count(*given: Any, **keywords: Any) -> Any:
        calls.append(keywords)
        return original(*given, **keywords)

    monkeypatch.setattr(module, name, count)
    return calls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(ALONE))
def test_equals_the_oracle(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, ring = own_case(name, dtype)
    whole = [counted(monkeypatch, sdpa, x) for x in ("forward", "backward")]
    parts = [counted(monkeypatch, eager, x) for x in ("forward", "backward")]
    equals_oracle(case, replace(ring, backend="sdpa"))
    isolated = name.startswith("nothing") or name == "documents"
    for own, others in zip(whole, parts, strict=True):
        assert [x["wide"] for x in own] == [not isolated] * ring.size
        assert bool(others) is not isolated


def test_a_rank_left_alone_of_others_that_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents leave the third rank nothing to exchange; the first two exchange rows."""
    query, key, value = (
        torch.randn(1, 24, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    pattern = DilationPattern.longnet([24], [1])
    options: dict[str, Any] = {"ring_size": 3, "cu_seqlens": [0, 16, 24]}
    calls = counted(monkeypatch, sdpa, "forward")
    found = {}
    for backend in ("sdpa", "eager"):
        out = ring_dilated_attention(query, key, value, pattern, backend=backend, **options)
        found[backend] = (out, *torch.autograd.grad(out.square().sum(), (query, key, value)))
    assert [x["wide"] for x in calls] == [True, True, False]
    for ours, theirs in zip(*found.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_wrong_idea_of_who_is_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RankPlan, "isolated", property(lambda self: True))
    case, ring = own_case("ladder", "float32")
    with pytest.raises(AssertionError, match="max error"):
        equals_oracle(case, replace(ring, backend="sdpa"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layout": "replicated"}, "sequence of their own"),
        ({"order": "zigzag", "shard_lengths": [14, 18]}, "sequence of their own"),
        ({"shard_lengths": [10, 22]}, "sequence of their own"),
        ({"deterministic": True}, "where a ring is cut"),
        ({"dropout_p": 0.5}, "dropout"),
    ],
)
def test_a_named_backend_serves_or_says_why_not(options: dict[str, Any], reason: str) -> None:
    query = torch.randn(1, 32, 2, 4)
    pattern = DilationPattern.longnet([8, 32], [1, 2])
    ring_dilated_attention(query, query, query, pattern, ring_size=2, backend="sdpa")
    with pytest.raises(BackendError, match=reason):
        ring_dilated_attention(query, query, query, pattern, ring_size=2, backend="sdpa", **options)


@pytest.mark.parametrize(
    ("w", "r", "each", "order", "rank", "alone"),
    [
        # Pieces in two segments: the second begins at a multiple of r in its own, or does not.
        (12, 3, 12, "zigzag", 0, True),
        (12, 4, 12, "zigzag", 0, False),
        # In one segment: every r-th row goes on over the gap, or does not.
        (20, 5, 10, "zigzag", 0, True),
        (20, 4, 10, "zigzag", 0, False),
        # The shard begins at a multiple of r in its segment, or does not.
        (20, 5, 10, "contiguous", 1, True),
        (20, 4, 10, "contiguous", 1, False),
    ],
)
def test_rows_are_a_sequence_where_every_rth_goes_on(
    w: int, r: int, each: int, order: str, rank: int, alone: bool
) -> None:
    problem = Problem(DilationPattern.longnet([w], [r]), 2 * each, 1, 1)
    layout = make_layout(problem.n, 2, order)
    assert (own_problem(problem, layout, rank) is not None) is alone
