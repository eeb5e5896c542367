"""Rounds of small messages travel and are used together; results and bytes stay what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle.tolerance import check
from dilated_attention_pytorch import DilationPattern, dilated_attention, ring_dilated_attention
from dilated_attention_pytorch.comm.base import record_messages
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule import Problem, gathering, plan_rank

N, SIZE = 2048, 4
LADDER = DilationPattern.longnet([64, 128, 512, 1024, 2048], [1, 4, 16, 64, 128])
DENSE = DilationPattern.longnet([2048], [1])


def groups(pattern: DilationPattern, size: int = SIZE, **options: Any) -> list[int]:
    """Messages of each group that brings some."""
    problem = Problem(pattern, N, 4, 2, is_causal=True)
    layout = make_layout(N, size, options.pop("order", "contiguous"))
    # The last rank sees all.
    plan = plan_rank(problem, layout, size - 1, **options)
    found = [len(plan.received(group)) for group in range(len(plan.groups))]
    return [count for count in found if count]


def test_all_rounds_of_a_ladder_are_one_and_those_of_a_dense_branch_each_their_own() -> None:
    assert groups(LADDER) == [SIZE - 1]
    assert groups(DENSE) == [1] * (SIZE - 1)
    assert max(groups(LADDER, 16, buffer_shards=8)) == 3, "what does not fit the buffers waits"
    shuffled = np.random.default_rng(0).permutation(N)
    assert set(groups(LADDER, order=shuffled)) == {1}, "any row may have to travel"


def _tensors() -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, N, heads, 8) for heads in (4, 2, 2)]
    inputs = [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]
    dout = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    return inputs, dout, torch.rand(2, N, generator=generator) > 0.2


@pytest.mark.parametrize("order", ["contiguous", "zigzag"])
@pytest.mark.parametrize("masked", [False, True])
def test_results_are_those_of_one_device(order: str, masked: bool) -> None:
    inputs, dout, mask = _tensors()
    options: dict[str, Any] = {"is_causal": True, "key_mask": mask if masked else None}
    found = {}
    for name in ("ring", "one"):
        if name == "ring":
            out = ring_dilated_attention(*inputs, LADDER, ring_size=SIZE, order=order, **options)
        else:
            out = dilated_attention(*inputs, LADDER, backend="eager", **options)
        found[name] = [out.detach(), *torch.autograd.grad(out, inputs, dout)]
    for name, ours, one in zip(("out", "dq", "dk", "dv"), *found.values(), strict=True):
        check(name, ours.numpy(), one.numpy(), one.numpy(), "float64")


def test_the_kernels_meet_a_group_at_once_and_the_same_bytes_travel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, dout, _ = _tensors()
    calls: list[int] = []
    forward, backward = eager.forward, eager.backward

    def counted(compute: Any) -> Any:
        def call(query: Any, parts: Any, *rest: Any) -> None:
            calls.append(len(parts))
            compute(query, parts, *rest)

        return call

    monkeypatch.setattr(eager, "forward", counted(forward))
    monkeypatch.setattr(eager, "backward", counted(backward))
    sent = {}
    for together in (True, False):
        calls.clear()
        with monkeypatch.context() as patch, record_messages() as messages:
            if not together:
                patch.setattr(gathering, "message_bound", lambda *arguments: 1 << 40)
            gathering.rounds_together.cache_clear()
            plan_rank.cache_clear()
            out = ring_dilated_attention(*inputs, LADDER, ring_size=SIZE, is_causal=True)
            torch.autograd.grad(out, inputs, dout)
        sent[together] = sorted(messages, key=repr)
        # Own keys and one group, or own keys and the messages of the ranks before (causal).
        remote = SIZE - 1 if together else SIZE * (SIZE - 1) // 2
        assert len(calls) == 2 * (SIZE + remote)
    gathering.rounds_together.cache_clear()
    plan_rank.cache_clear()
    assert sent[True] == sent[False]
