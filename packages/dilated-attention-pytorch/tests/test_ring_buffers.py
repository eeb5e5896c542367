"""Every ring path's messages lie in buffers that are kept: no step after the second makes one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_pytorch import DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.comm import Workspace, loopback
from dilated_attention_pytorch.comm import workspace as workspace_module
from dilated_attention_pytorch.ring import trade

N, SIZE = 96, 4
LADDER = DilationPattern.longnet([16, 32, N], [1, 2, 8])
# 7 and 30 are no multiples of their rates: some queries are answered elsewhere.
SHIFTED = DilationPattern.torchscale(
    [7, 30, N], [2, 4, 8], phantom_keys=True, detach_mix=True, shift_rows=True
)
CASES: dict[str, dict[str, Any]] = {
    "ladder": {},
    "one rank at a time": {"pattern": DilationPattern.longnet([N], [1]), "is_causal": True},
    "zigzag": {"order": "zigzag", "is_causal": True},
    "deterministic": {"deterministic": True},
    "float64": {"dtype": torch.float64},
    "bfloat16": {"dtype": torch.bfloat16},
    "ragged": {"shard_lengths": (40, 0, 9, 47), "mask": False},
    "shifted": {"pattern": SHIFTED, "mask": False},
    "shifted, bfloat16": {"pattern": SHIFTED, "mask": False, "dtype": torch.bfloat16},
    "replicated": {"layout": "replicated"},
    "replicated, float64": {"layout": "replicated", "dtype": torch.float64, "order": "zigzag"},
    "replicated, shifted": {"layout": "replicated", "pattern": SHIFTED, "mask": False},
}


def step(
    pattern: DilationPattern = LADDER,
    dtype: torch.dtype = torch.float32,
    mask: bool = True,
    **options: Any,
) -> list[Tensor]:
    """(out, dq, dk, dv); keys lie transposed."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(2, heads, N, 8, generator=generator, dtype=dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (4, 2, 2)
    ]
    dout = torch.randn(2, N, 4, 8, generator=generator, dtype=dtype)
    if mask:
        options["key_mask"] = torch.rand(2, N, generator=generator) > 0.3
    out = ring_dilated_attention(*leaves, pattern, ring_size=SIZE, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


class Watched:
    """Simulated ranks with one kept workspace, and what travels in memory of another kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(keep=True)
        self.messages = 0
        self.elsewhere: set[tuple[str, bool]] = set()
        monkeypatch.setattr(loopback, "Workspace", lambda keep: self.workspace)
        original = loopback.LoopbackCommunicator.exchange

        def exchange(comm: Any, label: str, sends: Any, receives: Any) -> Any:
            for leaves, pairs in ((True, sends), (False, receives)):
                for _, tensor in pairs:
                    self.messages += 1
                    if not self.owns(tensor):
                        self.elsewhere.add((label, leaves))
            return original(comm, label, sends, receives)

        monkeypatch.setattr(loopback.LoopbackCommunicator, "exchange", exchange)

    def owns(self, tensor: Tensor) -> bool:
        """Whether the tensor lies in a buffer of the workspace."""
        address = tensor.untyped_storage().data_ptr()
        shelves = self.workspace._shelves.values()
        return any(x.data_ptr() == address for shelf in shelves for x in shelf.buffers)


def three_steps(watched: Watched, case: dict[str, Any]) -> tuple[list[int], list[list[Tensor]]]:
    """Buffers made after each step, and what each step computed."""
    made, found = [], []
    for _ in range(3):
        found.append(step(**case))
        made.append(watched.workspace.made)
    return made, found


def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_third_step_makes_no_buffer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = step(**CASES[name])
    watched = Watched(monkeypatch)
    made, found = three_steps(watched, CASES[name])
    assert watched.messages > 0
    assert made[0] > 0
    assert made[2] == made[1]
    # A finished result leaves from where it was computed: it needs no copy.
    assert watched.elsewhere <= {("result", True)}
    assert all(equal(one, expected) for one in found), "the bits of buffers that are new each time"


@pytest.mark.parametrize("name", ["ladder", "deterministic", "shifted", "replicated"])
def test_a_buffer_lent_too_soon_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every buffer counts as free."""
    expected = step(**CASES[name])
    watched = Watched(monkeypatch)
    monkeypatch.setattr(workspace_module, "_is_free", lambda buffer: True)
    _, found = three_steps(watched, CASES[name])
    assert not all(equal(one, expected) for one in found)


@pytest.mark.parametrize("name", ["shifted", "replicated"])
def test_a_message_outside_the_workspace_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: new memory for each message."""
    watched = Watched(monkeypatch)
    original = trade.Blocks.__init__

    def new(self: trade.Blocks, shapes: Any, like: Tensor, comm: Any) -> None:
        original(self, shapes, like, SimpleNamespace(workspace=Workspace(keep=False)))  # type: ignore[arg-type]

    monkeypatch.setattr(trade.Blocks, "__init__", new)
    three_steps(watched, CASES[name])
    assert watched.elsewhere & {("query", False), ("partial", False)}
