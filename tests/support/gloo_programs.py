"""What the ranks of `gloo_pool` run; their arguments and results travel between processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle.precision import lse_dtype, round_to
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import (
    DilationPattern,
    positions,
    ring_dilated_attention,
    shard,
    unshard,
)
from dilated_attention_pytorch.comm import SentMessage, record_messages
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.kernels import eager

from .gloo_pool import Member
from .memory_meter import MemoryMeter
from .ring_calls import Ring, keywords, library_pattern, tensors

Array = npt.NDArray[Any]
WIDTH = 16


@dataclass(frozen=True)
class RankResult:
    """One rank's own results, by name, and what it sent."""

    arrays: dict[str, Array]
    positions: Array
    forward: list[SentMessage]
    backward: list[SentMessage]


def attend(member: Member, case: Case, ring: Ring, full_keys: bool = False) -> RankResult:
    """Forward and backward of one rank; replicated with its own keys or with all of them."""
    options: dict[str, Any] = ring.options
    rows = positions(
        case.length,
        group=member.group,
        order=options["order"],
        shard_lengths=ring.shard_lengths,
    )
    replicated = ring.layout == "replicated"
    dtype = getattr(torch, case.dtype)

    def own(tensor: Tensor, whole: bool) -> Tensor:
        return tensor if whole else tensor[:, rows].clone()

    q, k, v = tensors(case)
    query, key, value = own(q, replicated), own(k, full_keys), own(v, full_keys)
    inputs = tuple(x.requires_grad_() for x in (query, key, value))
    call = keywords(case)
    if case.key_mask is not None:
        call["key_mask"] = own(call["key_mask"], full_keys)
    dout, dlse = (
        own(torch.tensor(round_to(x, kind), dtype=getattr(torch, kind)), replicated)
        for x, kind in ((case.dout, case.dtype), (case.dlse, lse_dtype(case.dtype)))
    )
    assert dout.dtype == dtype
    with record_messages() as forward:
        out, lse = ring_dilated_attention(
            query,
            key,
            value,
            library_pattern(case.pattern),
            group=member.group,
            deterministic=ring.deterministic,
            backend=ring.backend,
            return_lse=True,
            **call,
            **options,
        )
    targets = [(out, dout)] + ([(lse, dlse)] if lse.requires_grad else [])
    results, gradients = zip(*targets, strict=True)
    with record_messages() as backward:
        found = torch.autograd.grad(results, inputs, gradients)
    named = zip(("out", "lse", "dq", "dk", "dv"), (out, lse, *found), strict=True)
    arrays = {name: x.detach().double().numpy() for name, x in named}
    return RankResult(arrays, rows.numpy(), forward, backward)


def drawn_masks(member: Member) -> Array:
    """The output of two steps with dropout and no seed; each rank's generator stands elsewhere."""
    torch.manual_seed(100 + member.rank)
    x = torch.ones(1, 8, 1, 4)
    pattern = DilationPattern.longnet([8 * member.size], [1])
    steps = [
        unshard(
            ring_dilated_attention(x, x, x, pattern, group=member.group, dropout_p=0.5),
            group=member.group,
        )
        for _ in range(2)
    ]
    return torch.stack(steps).numpy()


def sharded_and_back(member: Member, n: int, ring: Ring) -> tuple[Array, Array, Array]:
    """(unshard(shard(x)), gradient through both of a loss that differs by rank, own rows)."""
    x = torch.arange(2.0 * n * 3).view(2, n, 3).requires_grad_()
    chosen = {"order": ring.options["order"], "shard_lengths": ring.shard_lengths}
    mine = shard(x, group=member.group, **chosen)
    whole = unshard(mine, group=member.group, **chosen)
    (gradient,) = torch.autograd.grad((whole * (1 + member.rank)).sum(), mine)
    return whole.detach().numpy(), gradient.numpy(), mine.detach().numpy()


def disagree(member: Member, odd: int, change: dict[str, Any]) -> str:
    """All ranks call alike but for rank `odd`; returns a word, since every rank should raise."""
    call: dict[str, Any] = {
        "segments": [8, 16],
        "rates": [1, 2],
        "rows": 4,
        "heads": 2,
        "kv_heads": 2,
        "width": 4,
        "dtype": torch.float32,
        "requires_grad": False,
        "batch": 1,
        "options": {},
    }
    if member.rank == odd:
        call |= change
    shape = (call["batch"], call["rows"], call["heads"], call["width"])
    key_shape = (call["batch"], call["rows"], call["kv_heads"], call["width"])
    q = torch.ones(shape, dtype=call["dtype"], requires_grad=call["requires_grad"])
    k = torch.ones(key_shape, dtype=call["dtype"])
    pattern = DilationPattern.longnet(call["segments"], call["rates"])
    if call.get("plain_pattern"):
        pattern = (call["segments"], call["rates"])  # type: ignore[assignment]
    ring_dilated_attention(q, k, k, pattern, group=member.group, **call["options"])
    return "did not raise"


def miscount(member: Member, odd: int) -> str:
    """Rank `odd` calls forward twice where the others call forward and then backward."""
    q = torch.ones(1, 4, 2, 4, requires_grad=True)
    pattern = DilationPattern.longnet([16], [1])
    out = ring_dilated_attention(q, q, q, pattern, group=member.group)
    if member.rank == odd:
        ring_dilated_attention(q, q, q, pattern, group=member.group)
    else:
        out.sum().backward()
    return "did not raise"


def stop_early(member: Member, odd: int) -> str:
    """Rank `odd` makes one call less than the others, and lives on."""
    q = torch.ones(1, 4, 2, 4)
    pattern = DilationPattern.longnet([16], [1])
    for _ in range(1 if member.rank == odd else 2):
        ring_dilated_attention(q, q, q, pattern, group=member.group)
    return "did not raise" if member.rank != odd else "made its call"


class _Ends:
    """Wraps `exchange`: the rank's life ends at its `countdown`-th exchange of a label."""

    def __init__(self, how: str, label: str, countdown: int) -> None:
        self.how, self.label, self.countdown = how, label, countdown
        self.original = ProcessGroupCommunicator.exchange

    def __call__(self, comm: Any, label: str, sends: Any, receives: Any) -> Any:
        if label == self.label:
            self.countdown -= 1
            if self.countdown < 0:
                end_life(self.how)
        return self.original(comm, label, sends, receives)


def end_life(how: str) -> None:
    """End as told: killed, exited, stuck, or by an exception."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exited":
        os._exit(0)
    if how == "stuck":
        time.sleep(600)
    raise RuntimeError("planted: the kernel failed")


def mortal_step(member: Member, odd: int, how: str, label: str, countdown: int) -> str:
    """A training step in which rank `odd` ends; the others should raise."""
    if member.rank == odd:
        ends = _Ends(how, label, countdown)
        ProcessGroupCommunicator.exchange = (  # type: ignore[method-assign]
            lambda comm, *arguments: ends(comm, *arguments)
        )
    torch.manual_seed(0)
    q = torch.randn(1, 64, 2, 8, requires_grad=True)
    pattern = DilationPattern.longnet([64 * member.size], [1])
    out = ring_dilated_attention(q, q, q, pattern, group=member.group)
    out.square().sum().backward()
    return "finished the step"


def peak_bytes(member: Member, n: int, layout: str) -> int:
    """Most bytes alive at once over a forward and backward, inputs and gradients included.

    Tiles are small here, so that they vanish beside the rows.
    """
    pattern = DilationPattern.longnet([n // 16, n], [1, 8])
    rows = n // member.size
    with pytest.MonkeyPatch.context() as patch, MemoryMeter() as meter:
        patch.setattr(eager, "BLOCK", 32)
        q = torch.ones(1, n if layout == "replicated" else rows, 2, WIDTH, requires_grad=True)
        k, v = (torch.ones(1, rows, 2, WIDTH, requires_grad=True) for _ in range(2))
        # One rank computes by the kernels of the others: rings have them alone.
        out = ring_dilated_attention(
            q, k, v, pattern, group=member.group, layout=layout, backend="eager"
        )
        out.backward(torch.ones_like(out))
    return int(meter.peak)


def whole_bytes(n: int) -> int:
    """Bytes of one array of all n rows, as `peak_bytes` uses."""
    return n * 2 * WIDTH * np.dtype(np.float32).itemsize


def buffers_after_waiting(member: Member) -> int:
    """Bytes alive of an exchange's buffers, once it was waited for and only it is held."""
    other = 1 - member.rank
    with MemoryMeter() as meter:
        sent, received = torch.zeros(1024), torch.zeros(1024)
        comm = ProcessGroupCommunicator(member.group)
        work = comm.exchange("key_value", [(other, sent)], [(other, received)])
        del sent, received
        work.wait()
        return meter.live


def fault(member: Member, name: str, odd: int, seconds: float) -> str:
    """One of the faults of `benchmarks.faults`, on a group of the pool."""
    from benchmarks import fault_programs, faults

    program = next(fault.program for fault in faults.FAULTS if fault.name == name)
    device = torch.device("cpu")
    given = (member.group, member.rank, member.size, device, odd, seconds, lambda: None)
    lived = fault_programs.Member(*given)
    fault_programs.warm_up(lived)
    return str(program(lived))


def scaling(member: Member, kind: str, is_causal: bool, planted: str = "") -> dict[str, Any]:
    """One small case of `benchmarks.scaling`, with a fault where one is named."""
    from benchmarks import scaling_cases, scaling_run

    from dilated_attention_pytorch.bench.machine import CpuMachine
    from dilated_attention_pytorch.bench.timing import Effort

    values = scaling_run._Calls.values

    def wrong(calls: Any) -> Any:
        found, sent = values(calls)
        if planted == "nan":
            found["dq"][0, 0, 0, 0] = torch.nan if member.rank == 1 else 0.0
        elif planted == "bytes":
            sent["forward"] += 1
        elif planted:
            found[planted] *= 1.01
        return found, sent

    chosen = scaling_cases.scaled(kind, member.size, scaling_cases.SMALL, is_causal=is_causal)
    ring = scaling_run.Ring(member.group, member.group, CpuMachine())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_run._Calls, "values", wrong)
        return scaling_run.measure(chosen, ring, Effort(seconds=0.001, rounds=1))
