"""Change one token: exactly the rows that the pattern says notice, for every call and class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import dilated_attention_pytorch as package
from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import nn as modules
from support.containment import seen_matrix
from support.ring_calls import ONE_DEVICE, Ring, library_pattern
from support.ring_strategies import EXACT, examples, ring_cases
from support.token_mixing import functions_mix_as_the_pattern_says, noticed

N, HEADS, WIDTH = 24, 4, 3
PATTERN = Pattern(((5, 2), (24, 3)))
OPTIONS: dict[str, Any] = {"segment_lengths": [5, 24], "dilation_rates": [2, 3]}
CHANGED = (0, 4, 11, 23)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Case, Ring, int]:
    features = [name for name in EXACT if name != "dropout"]
    case, ring = draw(
        ring_cases(
            features=features, dtypes=("float64",), layouts=("sharded", "replicated"), max_length=16
        )
    )
    ring = draw(st.sampled_from([ring, ring, replace(ONE_DEVICE, block=4)]))
    return case, ring, draw(st.integers(0, case.length - 1))


@examples()
@given(drawn=changes())
def test_functions(drawn: tuple[Case, Ring, int]) -> None:
    functions_mix_as_the_pattern_says(*drawn)


CORES: dict[str, list[dict[str, Any]]] = {
    "DilatedAttention": [{}],
    "ImprovedDilatedAttention": [{}],
    "RingDilatedAttentionV2": [
        {},
        {"ring_size": 3},
        {"ring_size": 5, "layout": "sharded", "order": "zigzag"},
    ],
    "RingAttentionCorrectV2": [{"dropout": 0.0}],
    "TrueRingDilatedAttention": [{"dropout": 0.0, "ring_size": 2}],
}
MULTIHEAD: dict[str, list[dict[str, Any]]] = {
    "MultiheadDilatedAttention": [{"rule": "longnet"}],
    "ImprovedMultiheadDilatedAttention": [{}],
    "DistributedMultiheadDilatedAttention": [{}, {"ring_size": 3}],
    "RingMultiheadDilatedAttentionV2": [{}, {"ring_size": 4}],
}


def classes() -> set[str]:
    """Public attention classes of the library: those of `nn`, and what else the package exports.

    Models attend through the functions, and deprecated classes live in the compat package.
    """
    found = {name for name, _ in inspect.getmembers(modules, inspect.isclass)}
    for name in dir(package):
        value = getattr(package, name)
        if inspect.isclass(value) and issubclass(value, nn.Module):
            home = value.__module__.removeprefix("dilated_attention_pytorch.").split(".")[0]
            if home not in ("models", "dilated_attention_compat"):
                found.add(name)
    return found


def test_every_public_class_is_probed() -> None:
    assert classes() == {*CORES, *MULTIHEAD}


def expected_rows(token: int, is_causal: bool) -> np.ndarray[Any, Any]:
    """(n, H): which rows see the token."""
    shape = (1, N, HEADS, WIDTH)
    blank = np.zeros(shape)
    case = Case(blank, blank, blank, blank, np.zeros(shape[:3]), PATTERN, is_causal=is_causal)
    found: np.ndarray[Any, Any] = seen_matrix(case)[0, :, :, token].T
    return found


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, many in CORES.items() for options in many]
)
def test_core_classes(name: str, options: dict[str, Any], is_causal: bool) -> None:
    module = getattr(modules, name)(pattern=library_pattern(PATTERN), **options)
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, N, HEADS, WIDTH, dtype=torch.float64, generator=generator)
    probe(lambda x: module(q, k + x, v + x, is_causal=is_causal), is_causal, per_head=True)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, many in MULTIHEAD.items() for options in many]
)
def test_multihead_classes(name: str, options: dict[str, Any], is_causal: bool) -> None:
    torch.manual_seed(0)
    module = getattr(modules, name)(HEADS * WIDTH, HEADS, **OPTIONS, **options).double().eval()
    query, key = torch.randn(2, 1, N, HEADS * WIDTH, dtype=torch.float64)

    def call(x: Tensor) -> Tensor:
        out = module(query, key + x.flatten(2), key + x.flatten(2), is_causal=is_causal)
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found

    probe(call, is_causal, per_head=False)


def probe(call: Callable[[Tensor], Tensor], is_causal: bool, *, per_head: bool) -> None:
    """Add 1 to one token's keys and values."""
    change = torch.zeros(1, N, HEADS, WIDTH, dtype=torch.float64)
    before = call(change)
    for token in CHANGED:
        change.zero_()
        change[:, token] = torch.arange(1.0, 1.0 + HEADS * WIDTH).view(HEADS, WIDTH)
        rows = expected_rows(token, is_causal)
        want = np.argwhere(rows if per_head else rows.any(1))
        assert noticed(before, call(change)) == [(0, *row) for row in want.tolist()]
