"""What the ranks of `gloo_pool` run for `test_gloo_transports`."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dilated_attention_pytorch import DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.comm import Workspace, record_times
from dilated_attention_pytorch.comm import workspace as workspace_module
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.comm.transports import VARIABLE, state_of
from dilated_attention_pytorch.cost import Link, Links
from dilated_attention_pytorch.functional import (
    measured_links,
    release_buffers,
)

from .gloo_pool import Member

N = 512
CASES = {
    "ladder": DilationPattern.longnet([32, 128, N], [1, 4, 64]),
    "dense": DilationPattern.longnet([N], [1]),
    "replicated": DilationPattern.longnet([32, 128, N], [1, 4, 64]),
    "shifted": DilationPattern.torchscale(
        [30, N], [4, 16], phantom_keys=True, detach_mix=True, shift_rows=True
    ),
}


def _step(member: Member, case: str, *, mask: bool = False) -> list[Tensor]:
    """(out, dq, dk, dv) of the rank's rows; with `replicated` of all rows, keys among them."""
    layout = "replicated" if case == "replicated" else "sharded"
    mask &= case != "shifted"
    rows = N if layout == "replicated" else N // member.size
    generator = torch.Generator().manual_seed(0 if layout == "replicated" else member.rank)
    leaves = [
        torch.randn(2, rows, heads, 8, generator=generator).requires_grad_() for heads in (4, 2, 2)
    ]
    dout = torch.randn(2, rows, 4, 8, generator=generator)
    kept = torch.rand(2, rows, generator=generator) > 0.3 if mask else None
    out = ring_dilated_attention(
        *leaves, CASES[case], group=member.group, key_mask=kept, layout=layout
    )
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def steps_with_kept_buffers(
    member: Member, case: str, planted: bool = False
) -> tuple[list[int], bool]:
    """Buffers made after each of three steps, and whether all equal the step with new buffers."""
    state = state_of(member.group)
    new = state.workspace
    plain = _step(member, case, mask=True)
    made, equal = [], True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "workspace", Workspace(keep=True))
        if planted:
            patch.setattr(workspace_module, "_is_free", lambda buffer: True)
        for _ in range(3):
            found = _step(member, case, mask=True)
            equal &= all(torch.equal(x, y) for x, y in zip(plain, found, strict=True))
            made.append(state.workspace.made)
    assert state.workspace is new
    return made, equal


def batches(member: Member, case: str) -> list[tuple[str, int, int]]:
    """(label, sends, receives) of each exchange that the rank posts."""
    found = []
    original = ProcessGroupCommunicator.exchange

    def exchange(comm: Any, label: str, sends: Any, receives: Any) -> Any:
        found.append((label, len(sends), len(receives)))
        return original(comm, label, sends, receives)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroupCommunicator, "exchange", exchange)
        _step(member, case)
    return found


def times(member: Member) -> list[tuple[str, int, float, float, float]]:
    """(label, bytes, posted, needed, arrived) of each exchange, in milliseconds."""
    with record_times() as outer, record_times() as timings:
        begin = timings_begin()
        _step(member, "ladder")
    assert outer == timings
    return [
        (x.label, x.nbytes, *(begin.elapsed_time(y) for y in (x.posted, x.needed, x.arrived)))
        for x in timings
    ]


def timings_begin() -> Any:
    """Now."""
    from dilated_attention_pytorch.comm.times import mark

    return mark(on_gpu=False)


def waited_for(member: Member, seconds: float) -> tuple[float, float]:
    """Milliseconds of work beside an exchange that rank 1 posts late, and of waiting for it."""
    comm = ProcessGroupCommunicator(member.group)
    other, sent, received = 1 - member.rank, torch.zeros(64), torch.zeros(64)
    dist.barrier(member.group)
    if member.rank == 1:
        time.sleep(seconds)
    with record_times() as timings:
        work = comm.exchange("key_value", [(other, sent)], [(other, received)])
        time.sleep(seconds / 3)
        work.wait()
    (timing,) = timings
    assert timing.needed is not None
    return timing.posted.elapsed_time(timing.needed), timing.needed.elapsed_time(timing.arrived)


def with_transport(member: Member, asked: dict[int, str]) -> str:
    """A step of ranks whose environment names transports."""
    with pytest.MonkeyPatch.context() as patch:
        if member.rank in asked:
            patch.setenv(VARIABLE, asked[member.rank])
        _step(member, "ladder")
    return "ran"


LINKS = Links(Link(1e-3, 1e9), Link(1e-5, 1e11), "a test")


def with_other_links(member: Member, odd: int) -> str:
    """A step of ranks of which one has measured what the others have not."""
    with pytest.MonkeyPatch.context() as patch:
        if member.rank == odd:
            patch.setattr(state_of(member.group), "links", LINKS)
        _step(member, "ladder")
    return "ran"


def chosen_for_links(member: Member) -> list[dict[str, str]]:
    """What a call chooses where sends and receives are slow, and where they are fast."""
    found: list[dict[str, str]] = []

    def choose(comm: Any, chosen: dict[str, str]) -> None:
        found.append(dict(chosen))

    fast = Links(LINKS.symmetric or LINKS.p2p, LINKS.p2p, "a test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroupCommunicator, "choose", choose)
        for links in (LINKS, fast):
            patch.setattr(state_of(member.group), "links", links)
            _step(member, "ladder")
    return found


def kept_and_released(member: Member) -> tuple[int, int, Links | None]:
    """(bytes kept after a step, bytes after their release, links)."""
    with pytest.MonkeyPatch.context() as patch:
        state = state_of(member.group)
        patch.setattr(state, "workspace", Workspace(keep=True))
        _step(member, "ladder")
        kept = state.workspace.nbytes
        release_buffers(member.group)
        return kept, state.workspace.nbytes, measured_links(member.group)


def shared_gpu_case(member: Member, name: str, planted: str = "") -> dict[str, Any]:
    """One small case of `benchmarks.shared_gpu`, with a wrong array where one is named."""
    from benchmarks import shared_gpu

    original = shared_gpu._Run.attend

    def attend(run: Any, case: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        found = original(run, case, dtype)
        if planted:
            found[planted] = found[planted] * 1.01
        return found

    (case,) = (x for x in shared_gpu.cases(32) if x.name == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_gpu._Run, "attend", attend)
        run = shared_gpu._Run(member.group, member.group, torch.device("cpu"))
        return run.judge(case, "float32")


def overlap(member: Member) -> dict[str, Any]:
    """A tiny case of `benchmarks.overlap`."""
    from benchmarks import overlap as suite
    from benchmarks import scaling_cases

    case = scaling_cases.scaled("weak", member.size, scaling_cases.SMALL, is_causal=False)
    device = torch.device("cpu")
    return suite.measure(case, member.group, member.group, device, steps=2, warm_up=1)
