"""What `dilated-attention verify` runs on every rank: one function for each check."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dilated_attention_oracle import tolerance

from .. import __version__, cost
from ..bench import inputs, verify
from ..bench.cases import Case
from ..comm import transports
from ..comm.process_group import ProcessGroupCommunicator
from ..functional import dilated_attention, ring_dilated_attention, shard, unshard
from ..layout import make_layout
from ..pattern import DilationPattern
from ..schedule import Problem
from . import memory
from .rank import Rank

MEBIBYTE = 1 << 20
_REPEATS = 5
HEADS, HEAD_DIM = 4, 64
ARRAYS = ("out", "lse", "dq", "dk", "dv")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Args:
        check: What was checked.
        ring: On which ring.
        measured: What was found.
        limit: What was allowed; empty where something is only measured.
        passed: Whether it was within the limit; None where something is only measured.
    """

    check: str
    ring: str
    measured: str
    limit: str = ""
    passed: bool | None = None


def case_of(length: int, device: torch.device) -> Case:
    """A ladder whose last branch spans the sequence: every rank needs rows of every other."""
    segments = [max(1, length >> shift) for shift in (4, 2, 0)]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Case(
        name=f"n = {length:,}",
        group="cpu",
        pattern=DilationPattern.longnet(segments, [1, 3, 8]),
        n=length,
        heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=dtype,
    )


def software(rank: Rank) -> str:
    """What has to be equal on all ranks for equal numbers."""
    where = torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else "CPU"
    return f"{__version__}, PyTorch {torch.__version__}, {where}"


def strangers(rank: Rank) -> list[int]:
    """Ranks whose message to this one arrived changed, or was another's."""
    comm = ProcessGroupCommunicator(rank.group)
    size, own = comm.size, comm.rank

    def message(source: int, target: int) -> Tensor:
        numbers = torch.arange(4096, device=rank.device, dtype=torch.float64)
        return numbers + 4096 * (source * size + target)

    wrong = []
    for step in range(1, size):
        target, source = (own + step) % size, (own - step) % size
        buffer = torch.full_like(message(source, own), torch.nan)
        work = comm.exchange("key_value", [(target, message(own, target))], [(source, buffer)])
        work.wait()
        if not torch.equal(buffer, message(source, own)):
            wrong.append(source)
    return wrong


def bandwidth(rank: Rank, nbytes: int) -> float:
    """Bytes a second to the next rank while as many arrive from the previous one, best of some."""
    comm = ProcessGroupCommunicator(rank.group)
    target, source = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    sent = torch.zeros(nbytes, dtype=torch.uint8, device=rank.device)
    received = torch.empty_like(sent)
    seconds = []
    for _ in range(_REPEATS):
        # All start together; reading the sum back waits for the device.
        comm.all_reduce_sum(torch.zeros(1, device=rank.device)).item()
        start = time.perf_counter()
        comm.exchange("key_value", [(target, sent)], [(source, received)]).wait()
        if rank.device.type == "cuda":
            torch.cuda.synchronize(rank.device)
        seconds.append(time.perf_counter() - start)
    return nbytes / min(seconds)


def transports_of(rank: Rank) -> str | None:
    """What each transport between the GPUs was measured to do; None where there is one alone."""
    comm = ProcessGroupCommunicator(rank.group)
    comm.prepare(rank.device, transports.asked())
    if comm.links is None:
        return None
    ways = (transports.P2P, comm.links.p2p), (transports.SYMMETRIC, comm.links.symmetric)
    return "; ".join(
        f"{name} {link.bandwidth / 1e9:.0f} GB/s, {1e6 * link.latency:.0f} us"
        for name, link in ways
        if link is not None
    )


def attend(rank: Rank, case: Case, *, deterministic: bool = False) -> dict[str, Tensor]:
    """out, lse, dq, dk and dv of all rows, on the CPU, computed by this ring."""
    # The CPU's generator gives every machine the same numbers.
    drawn = inputs.draw(case, torch.device("cpu"))
    query, key, value, dout = (
        shard(x, group=rank.group).to(rank.device)
        for x in (drawn.query, drawn.key, drawn.value, drawn.dout)
    )
    leaves = query.requires_grad_(), key.requires_grad_(), value.requires_grad_()
    out, lse = ring_dilated_attention(
        query,
        key,
        value,
        case.pattern,
        group=rank.group,
        deterministic=deterministic,
        return_lse=True,
    )
    gradients = torch.autograd.grad(out, leaves, dout)
    named = zip(ARRAYS, (out, lse, *gradients), strict=True)
    return {name: unshard(x.detach(), group=rank.group).cpu() for name, x in named}


@dataclass(frozen=True, slots=True)
class Expected:
    """What the first rank judges a ring's results by.

    Args:
        samples: some rows by the operator's definition.
        exact: all rows of one device in float64, by name.
        plain: all rows of one device in float32.
    """

    samples: verify.Samples
    exact: dict[str, Tensor]
    plain: dict[str, Tensor]


def expect(case: Case) -> Expected:
    """Compute it, on the CPU."""
    drawn = inputs.draw(_in_float32(case), torch.device("cpu"))

    def one_device(dtype: torch.dtype) -> dict[str, Tensor]:
        query, key, value = (
            x.to(dtype).requires_grad_() for x in (drawn.query, drawn.key, drawn.value)
        )
        out, lse = dilated_attention(
            query, key, value, case.pattern, backend="eager", return_lse=True
        )
        gradients = torch.autograd.grad(out, (query, key, value), drawn.dout.to(dtype))
        return dict(zip(ARRAYS, (out.detach(), lse.detach(), *gradients), strict=True))

    samples = verify.sample(case, inputs.draw(case, torch.device("cpu")))
    return Expected(samples, one_device(torch.float64), one_device(torch.float32))


def _in_float32(case: Case) -> Case:
    # All rows are compared in float32: what one device rounds on the way says how much a ring may
    # differ from it, and in 16 bits two sound kernels may round at different places.
    return replace(case, dtype=torch.float32)


def correctness(rank: Rank, case: Case, expected: Expected | None) -> list[Row]:
    """This ring's rows, judged by the first rank, which alone knows what to expect."""
    values = attend(rank, case)
    wide_case = _in_float32(case)
    wide = values if wide_case == case else attend(rank, wide_case)
    if expected is None:
        return []
    judges = {
        "rows by definition": partial(verify.verify, case, expected.samples, values, tolerance),
        "rows of one device": partial(_shares, wide_case, expected, wide),
    }
    return [_row(name, rank.ring_size, judge) for name, judge in judges.items()]


def _row(name: str, ring_size: int, judge: Callable[[], dict[str, float]]) -> Row:
    row, limit = (name, str(ring_size)), "within the tolerance"
    try:
        shares = judge()
    except AssertionError as error:
        return Row(*row, str(error), limit, False)
    worst = max(shares, key=lambda array: shares[array])
    return Row(*row, f"{shares[worst]:.2f} of it ({worst})", limit, True)


def _shares(case: Case, expected: Expected, values: dict[str, Tensor]) -> dict[str, float]:
    """Largest share of the tolerance that any row of each array uses.

    The bound is the contract's, with one device's error in float32 for the naive one.

    Raises:
        AssertionError: an array is outside its bound.
    """
    shares = {}
    for name, value in values.items():
        actual, exact, plain = (
            x.double().numpy() for x in (value, expected.exact[name], expected.plain[name])
        )
        if name == "lse":
            report = tolerance.check_lse(actual, exact, plain, case.dtype_name)
        else:
            report = tolerance.check(name, actual, exact, plain, case.dtype_name)
        shares[name] = report.share
    return shares


def bits(rank: Rank, case: Case) -> str:
    """A digest of out and lse with `deterministic=True`, equal for every ring size."""
    found = attend(rank, case, deterministic=True)
    digest = hashlib.sha256()
    for name in ("out", "lse"):
        digest.update(found[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def peak_memory(rank: Rank, length: int) -> tuple[int, int]:
    """(peak bytes of this rank, what it would hold at least if it gathered all keys and values)."""
    peak = memory.peak_bytes(rank, length)
    problem = Problem(memory.pattern_of(length), length, memory.HEADS, memory.HEADS, is_causal=True)
    layout = make_layout(length, rank.ring_size)
    shape: dict[str, Any] = {"batch": 1, "head_dim": memory.HEAD_DIM, "itemsize": 4}
    planned = cost.rank_memory(problem, layout, rank.index, **shape)
    others = length - layout.lengths[rank.index]
    return peak, planned + 2 * others * memory.HEADS * memory.HEAD_DIM * 4


def gather(side: dist.ProcessGroup, value: Any) -> list[Any]:
    """Every rank's value."""
    found: list[Any] = [None] * dist.get_world_size(side)
    dist.all_gather_object(found, value, group=side)
    return found
