"""Offsets by rule, presets, and what a frozen pattern promises."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import pytest

from dilated_attention_pytorch import Branch, DilationPattern

LENGTHS, RATES = [4, 8, 16], [1, 2, 4]


@pytest.mark.parametrize(
    ("pattern", "heads", "expected"),
    [
        (
            DilationPattern.longnet(LENGTHS, RATES),
            5,
            ((0, 0, 0, 0, 0), (0, 1, 0, 1, 0), (0, 1, 2, 3, 0)),
        ),
        (
            DilationPattern.torchscale(LENGTHS, RATES),
            5,
            ((0, 0, 0, 0, 0), (0, 0, 0, 1, 1), (0, 0, 1, 1, 2)),
        ),
        (
            DilationPattern.head_groups(LENGTHS, RATES),
            4,
            ((0, 0, None, None), (None, None, 1, None), (None, None, None, 2)),
        ),
        (
            DilationPattern.from_branches([Branch(4, 2), Branch(8, 3)], [[0, None], [2, 1]]),
            2,
            ((0, None), (2, 1)),
        ),
    ],
    ids=["longnet", "torchscale", "head_groups", "table"],
)
def test_offsets(
    pattern: DilationPattern, heads: int, expected: tuple[tuple[int | None, ...], ...]
) -> None:
    assert pattern.offsets(heads) == expected


def test_patterns_are_values() -> None:
    pattern = DilationPattern.longnet(LENGTHS, RATES)
    twin = DilationPattern.longnet(tuple(LENGTHS), tuple(RATES))
    assert pattern == twin
    assert hash(pattern) == hash(twin)
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert pattern != DilationPattern.torchscale(LENGTHS, RATES)
    with pytest.raises(FrozenInstanceError):
        pattern.rule = "torchscale"  # type: ignore[misc]


def test_the_papers_preset() -> None:
    pattern = DilationPattern.preset("longnet-paper")
    pairs = [(branch.segment_length, branch.dilation_rate) for branch in pattern.branches]
    assert pairs == [(2048, 1), (4096, 2), (8192, 4), (16384, 6), (32768, 12)]
    assert pattern.rule == "longnet"
    assert pattern == DilationPattern.preset("longnet-paper", exact=True)
