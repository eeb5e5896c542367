"""Copying, pickling, describing and training the modules."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.comm.base import record_messages
from dilated_attention_pytorch.pattern import DilationPattern

SHORT = {"segment_lengths": [8, 16], "dilation_rates": [1, 2]}
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
COPIES: list[Callable[[nn.Module], nn.Module]] = [
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def construct(build: Callable[..., nn.Module]) -> tuple[nn.Module, list[torch.Tensor]]:
    if build in MULTIHEADS:
        return build(16, 4, **SHORT), [torch.randn(2, 16, 16)]
    return build(**SHORT), list(torch.randn(3, 2, 16, 4, 4).unbind())


def first(out: torch.Tensor | tuple[torch.Tensor, None]) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("duplicate", COPIES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("build", [*CORES, *MULTIHEADS])
def test_copies_compute_the_same_and_are_independent(
    build: Callable[..., nn.Module], duplicate: Callable[[nn.Module], nn.Module]
) -> None:
    module, inputs = construct(build)
    first(module(*inputs))
    twin = duplicate(module)
    # Twice: the historical classes broke on the second call after unpickling.
    for _ in range(2):
        assert torch.equal(first(twin(*inputs)), first(module(*inputs)))
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        assert ours is not theirs
        assert ours.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize("build", MULTIHEADS)
def test_two_training_steps_lower_the_loss(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    module = build(16, 4, **SHORT, dropout=0.1)
    x, target = torch.randn(2, 2, 16, 16).unbind()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (first(module(x, seed=0)) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("build", [*CORES, *MULTIHEADS])
def test_no_module_registers_buffers_or_hides_children(build: Callable[..., nn.Module]) -> None:
    module, _ = construct(build)
    assert list(module.buffers()) == []
    names = {name.split(".")[0] for name in module.state_dict()}
    assert {name for name, _ in module.named_children()} == names


def test_repr_says_what_differs_from_the_defaults() -> None:
    text = repr(modules.DilatedAttention([8, 16], [1, 2], 0.5, 0.1, deterministic=True))
    for part in ("[8, 16]", "[1, 2]", "'head_groups'", "output_scale=0.5", "softmax_scale=0.5"):
        assert part in text
    assert "dropout=0.1" in text
    assert "deterministic=True" in text
    text = repr(modules.RingMultiheadDilatedAttentionV2(16, 4, **SHORT, ring_size=2))
    for part in ("embed_dim=16", "num_heads=4", "layout='replicated'", "ring_size=2", "'fused'"):
        assert part in text
    assert "dropout" not in text
    assert "mode='simulated'" in text


def test_historical_attributes() -> None:
    ring = modules.RingDilatedAttentionV2([8, 16], [1, 2], ring_size=4)
    assert (ring.mode, ring.ring_size) == ("simulated", 4)
    assert modules.RingDilatedAttentionV2([8], [1]).mode == "single"
    assert (ring.segment_lengths, ring.dilation_rates, ring.num_groups) == ([8, 16], [1, 2], 2)
    multihead = modules.MultiheadDilatedAttention(16, 4, [1, 2], [8, 16], dropout=0.25)
    assert multihead.segment_lengths == [8, 16]
    assert (multihead.embed_dim, multihead.num_heads, multihead.dropout) == (16, 4, 0.25)


def test_ring_attention_correct_v2_simulates_four_ranks_unless_told() -> None:
    module = modules.RingAttentionCorrectV2()
    q, k, v = torch.randn(3, 1, 16, 4, 4).unbind()

    def senders(*ring_size: int) -> set[int]:
        with record_messages() as sent:
            module(q, k, v, *ring_size)
        return {message.source for message in sent}

    assert senders() == {0, 1, 2, 3}
    assert senders(2) == {0, 1}
    assert senders(1) == set()
    assert "R = 4, replicated" in module.explain(16, num_heads=4, head_dim=4)


def test_any_pattern_is_taken_and_never_scaled() -> None:
    pattern = DilationPattern.head_groups([8, 16], [1, 2])
    q, k, v = torch.randn(3, 1, 16, 4, 4, dtype=torch.float64).unbind()
    short = modules.DilatedAttention([8, 16], [1, 2])(q, k, v)
    for whole in (
        modules.DilatedAttention(pattern=pattern),
        modules.DilatedAttention([8, 16], [1, 2], rule="head_groups"),
        modules.ImprovedDilatedAttention(pattern=pattern),
    ):
        assert whole.pattern == pattern
        # Two branches: the short form is divided by 2, which is exact.
        assert torch.equal(whole(q, k, v) / 2, short)
