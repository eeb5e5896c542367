"""Padding masks in both senses, packed documents, dropout in training only, seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dilated_attention_pytorch import dilated_attention
from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.pattern import DilationPattern

SHORT = {"segment_lengths": [8, 16], "dilation_rates": [1, 2]}
PATTERN = DilationPattern.longnet([8, 16], [1, 2])
CORES = [
    modules.DilatedAttention,
    modules.ImprovedDilatedAttention,
    modules.RingDilatedAttentionV2,
    modules.TrueRingDilatedAttention,
    modules.RingAttentionCorrectV2,
]
MULTIHEADS = [
    modules.MultiheadDilatedAttention,
    modules.ImprovedMultiheadDilatedAttention,
    modules.RingMultiheadDilatedAttentionV2,
    modules.DistributedMultiheadDilatedAttention,
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def qkv(n: int = 16, batch: int = 2) -> list[torch.Tensor]:
    return list(torch.randn(3, batch, n, 4, 4, dtype=torch.float64).unbind())


def first(out: torch.Tensor | tuple[torch.Tensor, None]) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("build", CORES)
def test_key_padding_mask_true_means_ignore(build: Callable[..., nn.Module]) -> None:
    module = build(**SHORT, rule="longnet")
    q, k, v = qkv()
    ignored = torch.zeros(2, 16, dtype=torch.bool)
    ignored[0, 10:] = True

    def noticed(rows: torch.Tensor) -> bool:
        changed = [torch.where(rows[..., None, None], 1e3, x) for x in (k, v)]
        before = module(q, k, v, key_padding_mask=ignored)
        return not torch.equal(module(q, *changed, key_padding_mask=ignored), before)

    assert not noticed(ignored)
    assert noticed(~ignored)
    # The functions have SDPA's sense, True = attend.
    as_function = dilated_attention(q, k, v, PATTERN, key_mask=~ignored)
    assert (as_function[0, 10:] != dilated_attention(q, k, v, PATTERN)[0, 10:]).all()


@pytest.mark.parametrize("build", MULTIHEADS)
def test_multihead_key_padding_mask(build: Callable[..., nn.Module]) -> None:
    module = build(16, 4, **SHORT, dtype=torch.float64)
    x = torch.randn(2, 16, 16, dtype=torch.float64)
    ignored = torch.zeros(2, 16, dtype=torch.bool)
    ignored[:, 12:] = True
    out = first(module(x, x.clone(), x.clone(), key_padding_mask=ignored))
    changed = x.clone()
    changed[:, 12:] += 1.0
    again = first(module(x, changed, changed, key_padding_mask=ignored))
    assert torch.equal(out, again)
    assert not torch.equal(out, first(module(x, changed, changed)))


@pytest.mark.parametrize("build", [*CORES, *MULTIHEADS])
@pytest.mark.parametrize("mask", [torch.zeros(2, 16), torch.zeros(2, 16, dtype=torch.uint8), [[0]]])
def test_key_padding_mask_is_bool_only(build: Callable[..., nn.Module], mask: object) -> None:
    sizes = (16, 4) if build in MULTIHEADS else ()
    inputs = (torch.randn(2, 16, 16),) if build in MULTIHEADS else torch.randn(3, 2, 16, 4, 4)
    with pytest.raises(TypeError, match="key_padding_mask must be a bool tensor, True where"):
        build(*sizes, **SHORT)(*inputs, key_padding_mask=mask)


@pytest.mark.parametrize("build", CORES)
def test_packed_documents(build: Callable[..., nn.Module]) -> None:
    q, k, v = qkv(batch=1)
    boundaries = torch.tensor([0, 5, 16], dtype=torch.int32)
    out = build(**SHORT)(q, k, v, cu_seqlens=boundaries)
    changed = v.clone()
    changed[:, :5] += 1.0
    again = build(**SHORT)(q, k, changed, cu_seqlens=boundaries)
    assert torch.equal(out[:, 5:], again[:, 5:])
    assert not torch.equal(out[:, :5], again[:, :5])


@pytest.mark.parametrize("build", [*CORES, *MULTIHEADS])
def test_dropout_acts_in_training_only_and_follows_the_seed(
    build: Callable[..., nn.Module],
) -> None:
    name = "attention_dropout" if build is modules.DilatedAttention else "dropout"
    if build in MULTIHEADS:
        module = build(16, 4, **SHORT, **{name: 0.5})
        inputs = [torch.randn(2, 16, 16)]
        without = build(16, 4, **SHORT)
        without.load_state_dict(module.state_dict())
    else:
        module, inputs, without = build(**SHORT, **{name: 0.5}), qkv(), build(**SHORT)
    plain = first(without(*inputs))
    assert torch.equal(first(module.eval()(*inputs)), plain)
    module.train()
    dropped = first(module(*inputs, seed=1))
    assert not torch.equal(dropped, plain)
    assert torch.equal(dropped, first(module(*inputs, seed=1)))
    assert not torch.equal(dropped, first(module(*inputs, seed=2)))
    assert not torch.equal(first(module(*inputs)), first(module(*inputs)))


@pytest.mark.parametrize("build", CORES)
def test_softmax_scale_reaches_the_scores(build: Callable[..., nn.Module]) -> None:
    q, k, v = qkv()
    out = build(**SHORT, rule="longnet", softmax_scale=2.0)(q, k, v)
    # scale * <q, k> = (1 / sqrt(4)) * <4 q, k>, and powers of two are exact.
    assert torch.equal(out, build(**SHORT, rule="longnet")(4 * q, k, v))
    assert not torch.equal(out, build(**SHORT, rule="longnet")(q, k, v))
