"""Change one token: who notices? Exactly the rows the pattern says, for every class."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.pattern import DilationPattern

N, HEADS, DIM = 24, 4, 4
SEGMENTS, RATES = [8, 24], [2, 4]
CHANGED = (0, 5, 10, 23)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def sees(rule: str, head: int, row: int, token: int, causal: bool) -> bool:
    """Whether `row` attends to `token`, straight from the definition of the two rules."""
    if causal and token > row:
        return False
    for branch, (w, r) in enumerate(zip(SEGMENTS, RATES, strict=True)):
        if rule == "head_groups" and head // (HEADS // len(SEGMENTS)) != branch:
            continue
        offset = branch % r if rule == "head_groups" else head % r
        if row // w == token // w and row % w % r == offset == token % w % r:
            return True
    return False


def core_cases() -> list[tuple[str, Callable[[], nn.Module]]]:
    ring = modules.RingDilatedAttentionV2
    pattern = DilationPattern.longnet(SEGMENTS, RATES)
    return [
        ("head_groups", lambda: modules.DilatedAttention(SEGMENTS, RATES)),
        ("longnet", lambda: modules.DilatedAttention(SEGMENTS, RATES, rule="longnet")),
        ("longnet", lambda: modules.ImprovedDilatedAttention(SEGMENTS, RATES)),
        ("longnet", lambda: modules.ImprovedDilatedAttention(pattern=pattern)),
        (
            "head_groups",
            lambda: modules.ImprovedDilatedAttention(SEGMENTS, RATES, rule="head_groups"),
        ),
        ("longnet", lambda: ring(SEGMENTS, RATES)),
        ("longnet", lambda: ring(SEGMENTS, RATES, ring_size=3)),
        ("longnet", lambda: ring(SEGMENTS, RATES, ring_size=3, layout="sharded", order="zigzag")),
        ("longnet", lambda: modules.TrueRingDilatedAttention(SEGMENTS, RATES, 0.0, 2)),
        ("longnet", lambda: modules.RingAttentionCorrectV2(pattern=pattern)),
    ]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rule", "build"), core_cases())
def test_core(rule: str, build: Callable[[], nn.Module], causal: bool) -> None:
    module = build()
    q, k, v = torch.randn(3, 1, N, HEADS, DIM, dtype=torch.float64).unbind()
    before = module(q, k, v, is_causal=causal)
    for token in CHANGED:
        key, value = k.clone(), v.clone()
        key[:, token] += 1.0
        value[:, token] -= 1.0
        after = module(q, key, value, is_causal=causal)
        noticed = (after != before).any(-1)[0]
        for head in range(HEADS):
            expected = [row for row in range(N) if sees(rule, head, row, token, causal)]
            assert noticed[:, head].nonzero().flatten().tolist() == expected


def multihead_cases() -> list[tuple[str, Callable[..., nn.Module]]]:
    return [
        ("head_groups", modules.MultiheadDilatedAttention),
        ("longnet", modules.ImprovedMultiheadDilatedAttention),
        ("longnet", modules.RingMultiheadDilatedAttentionV2),
        ("longnet", modules.DistributedMultiheadDilatedAttention),
    ]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rule", "build"), multihead_cases())
def test_multihead(rule: str, build: Callable[..., nn.Module], causal: bool) -> None:
    module = build(
        HEADS * DIM,
        HEADS,
        segment_lengths=SEGMENTS,
        dilation_rates=RATES,
        layer_norm=False,
        dtype=torch.float64,
    )

    def attend(x: torch.Tensor) -> torch.Tensor:
        out = module(x, is_causal=causal)
        return out[0] if isinstance(out, tuple) else out

    x = torch.randn(1, N, HEADS * DIM, dtype=torch.float64)
    before = attend(x)
    for token in CHANGED:
        changed = x.clone()
        changed[:, token] += 1.0
        noticed = (attend(changed) != before).any(-1)[0].nonzero().flatten().tolist()
        heads_seeing = [
            row
            for row in range(N)
            if any(sees(rule, head, row, token, causal) for head in range(HEADS))
        ]
        assert noticed == heads_seeing


def test_correct_v2_without_a_pattern_is_dense() -> None:
    module = modules.RingAttentionCorrectV2()
    q, k, v = torch.randn(3, 1, N, HEADS, DIM, dtype=torch.float64).unbind()
    before = module(q, k, v)
    k[:, 7] += 1.0
    assert (module(q, k, v) != before).any(-1).all()
