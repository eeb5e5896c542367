"""A plan of a call: memory, FLOPs, bytes, time, the longest sequence, and the same for other R."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Final

import torch

from .. import cost
from ..cost import Traffic
from ..layout import Layout, make_layout
from ..pattern import DilationPattern
from ..schedule import Problem
from . import memory, tiles, work
from .hardware import GPU, Links
from .memory import Memory
from .ring_launches import Busiest, runs_tiles
from .step import Step, Transport, step_of, transports
from .tiled_memory import tiled_rank
from .travel import likely_ranks, received, sent

ITEMSIZE: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
# Up to this ring size every rank is looked at; of a larger ring those that likely move most.
EVERY_RANK: Final = 256
_LIKELY_RANKS: Final = 64
# One part of this is how exactly the longest sequence is found.
_PRECISION: Final = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What is planned.

    Args:
        pattern: branches and offset rule, exact (without torchscale's switches).
        n: global sequence length.
        num_heads: query heads H.
        num_kv_heads: key/value heads.
        head_dim: d.
        dtype: of query, key and value: a name of `ITEMSIZE`.
        batch: b.
        is_causal: as in the call.
        buffer_shards: as in the call.

    Raises:
        ValueError: a value that the call would refuse, or a pattern that is not exact.
    """

    pattern: DilationPattern
    n: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    batch: int = 1
    is_causal: bool = False
    buffer_shards: int = 2

    def __post_init__(self) -> None:
        sizes = {"n": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": 1, "batch": 1}
        for name, least in (sizes | {"buffer_shards": 2}).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                "num_heads must be a multiple of num_kv_heads, got "
                f"{self.num_heads}, {self.num_kv_heads}"
            )
        if self.dtype not in ITEMSIZE:
            raise ValueError(f"unknown dtype {self.dtype!r}; expected one of {list(ITEMSIZE)}")
        if not self.pattern.exact:
            raise ValueError(
                "a plan knows the exact operator, got a pattern with torchscale's switches; "
                "plan the preset with exact=True, or the rule without the switches"
            )
        self.pattern.offsets(self.num_heads)

    @property
    def problem(self) -> Problem:
        """What the schedule is made for."""
        return Problem(self.pattern, self.n, self.num_heads, self.num_kv_heads, self.is_causal)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return ITEMSIZE[self.dtype]

    @property
    def backend(self) -> str:
        """What `backend="auto"` takes on one Hopper GPU, of the backends whose rates are known."""
        return work.backend_of(self.problem, getattr(torch, self.dtype), self.head_dim)


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring size: what its busiest ranks hold, move and take.

    Args:
        ring_size: R.
        memory: of the rank that holds most.
        fits: whether that is at most the GPU's memory.
        sent: bytes of the rank that sends most, in each direction of the call.
        received: bytes of the rank that receives most.
        per_link: most bytes from one rank to one other, in each direction of the call.
        flops: (forward, backward) of the rank that computes most.
        ranks: how many ranks `memory`, `sent`, `received` and `per_link` are taken over.
        transports: the way of each kind of exchange of which there are some.
        step: time, or None where no measurement tells it.
    """

    ring_size: int
    memory: Memory
    fits: bool
    sent: Traffic
    received: Traffic
    per_link: Traffic
    flops: tuple[int, int]
    ranks: int
    transports: tuple[Transport, ...]
    step: Step | None


@dataclass(frozen=True, slots=True)
class Source:
    """Whose rates the times are.

    Args:
        backend: the kernels, `gluon` or `triton`: what `backend="auto"` takes on one Hopper GPU.
        device: where they were measured.
    """

    backend: str
    device: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that `dilated-attention plan` tells.

    Args:
        call: what is planned.
        gpu: for which GPU.
        flops: (forward, backward) of the whole call.
        ring: the ring size asked for.
        largest_n: the longest sequence that fits that ring, to 0.1 %; 0 where none does.
        rings: other ring sizes.
        best: the smallest ring that fits, which spends least GPU time; None where none fits.
        fastest: the ring that fits and is done first; None where none fits or times are unknown.
        untimed: why there is no time, or None.
        rates: whose rates the times are; None where no ring has a time.
        links: between any two GPUs.
    """

    call: Call
    gpu: GPU
    flops: tuple[int, int]
    ring: Ring
    largest_n: int
    rings: tuple[Ring, ...]
    best: int | None
    fastest: int | None
    untimed: str | None
    rates: Source | None
    links: Links


def untimed(call: Call, ring_size: int) -> str | None:
    """Why no measurement tells the time of a call; None where one does."""
    if call.itemsize != 2:
        return f"times were measured in float16 and bfloat16, not {call.dtype}"
    rates, backend = work.fitted(), call.backend
    known = sorted({width for name, _, width in rates.by_kind if name == backend})
    if tiles.padded(backend, call.head_dim) not in known:
        return (
            f"times of the backend {backend} were measured for head dimensions that pad to "
            f"{known}, not {call.head_dim}"
        )
    period = work.period(call.problem)
    if ring_size == 1 and period > work.LONGEST_PERIOD:
        return (
            f"on one GPU tiles take every {period:,}th row here, and no case with a common "
            f"multiple of the dilation rates over {work.LONGEST_PERIOD} was measured"
        )
    return None


def plan_ring(call: Call, ring_size: int, gpu: GPU, links: Links) -> Ring:
    """One ring size, shards contiguous and as even as possible.

    Raises:
        ValueError: `ring_size` is not positive.
    """
    problem, layout = call.problem, make_layout(call.n, ring_size)
    every = ring_size <= EVERY_RANK
    ranks = likely_ranks(problem, layout, ring_size if every else _LIKELY_RANKS)
    row = 2 * call.batch * call.head_dim
    wide = 8 if call.itemsize == 8 else 4
    out = {rank: row * sent(problem, layout, rank) for rank in ranks}
    into = {rank: row * received(problem, layout, rank) for rank in ranks}
    forward_out, forward_in = (
        max(call.itemsize * int(found[rank].sum()) for rank in ranks) for found in (out, into)
    )
    # Backward moves the rows again, and float32 gradients the other way.
    goes = {rank: out[rank] * call.itemsize + into[rank] * wide for rank in ranks}
    comes = {rank: into[rank] * call.itemsize + out[rank] * wide for rank in ranks}
    backward_out, backward_in = (
        max(int(found[rank].sum()) for rank in ranks) for found in (goes, comes)
    )
    link_forward, link_backward = (
        max(int(x.max()) for found in pair for x in found.values())
        for pair in ((out, into), (goes, comes))
    )
    sends, receives = Traffic(forward_out, backward_out), Traffic(forward_in, backward_in)
    held = [_memory(call, problem, layout, rank) for rank in ranks]
    memory_of = Memory(
        max(m.forward for m in held), max(m.backward for m in held), max(m.kept for m in held)
    )
    rank, pairs = _most_pairs(problem, layout)
    ways = transports(call, layout, links)
    forward_flops = 4 * call.batch * call.head_dim * pairs
    step = None
    if untimed(call, ring_size) is None:
        rows = max(int(x.sum()) for found in (out, into) for x in found.values()) // row
        partners = max(int((x > 0).sum()) for x in into.values())
        step = step_of(call, layout, Busiest(rank, pairs, rows, partners), ways, links)
    return Ring(
        ring_size,
        memory_of,
        memory_of.peak <= gpu.memory,
        sends,
        receives,
        Traffic(link_forward * call.itemsize, link_backward),
        (forward_flops, forward_flops * 5 // 2),
        len(ranks),
        tuple(way for way in ways if way.exchange.nbytes),
        step,
    )


def _memory(call: Call, problem: Problem, layout: Layout, rank: int) -> Memory:
    shape: dict[str, Any] = {"batch": call.batch, "head_dim": call.head_dim}
    if layout.ring_size == 1 and call.itemsize < 8:
        return memory.whole_sequence(problem, itemsize=call.itemsize, **shape)
    shape["buffer_shards"] = call.buffer_shards
    if call.itemsize == 2 and runs_tiles(call, layout):
        return tiled_rank(problem, layout, rank, **shape)
    return memory.ring_rank(problem, layout, rank, itemsize=call.itemsize, **shape)


def _most_pairs(problem: Problem, layout: Layout) -> tuple[int, int]:
    """The rank whose queries have most pairs, and how many."""
    below = cost.pairs_below(problem, (0, *accumulate(layout.lengths)))
    pairs = [after - before for before, after in pairwise(below)]
    return max(enumerate(pairs), key=lambda item: item[1])


def _longest(start: int, fits: Callable[[int], bool]) -> int:
    """The largest n that fits, to one part in a thousand; sizes grow with n."""
    low, high = 0, max(1, start)
    while fits(high):
        low, high = high, high + max(1, high // 16)
    while low == 0 and high > 1:
        lower = high - max(1, high // 16)
        if fits(lower):
            low = lower
        else:
            high = lower
    while high - low > max(1, low // _PRECISION):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_length(call: Call, ring_size: int, gpu: GPU) -> int:
    """The longest sequence whose forward and backward fit the GPUs of a ring, to 0.1 %."""

    def peak(n: int) -> int:
        longer = replace(call, n=n)
        layout = make_layout(n, ring_size)
        ranks = {0, 1 % ring_size, ring_size // 2, ring_size - 1}
        return max(_memory(longer, longer.problem, layout, rank).peak for rank in ranks)

    guess = int(call.n * gpu.memory / peak(call.n))
    return _longest(guess, lambda n: peak(n) <= gpu.memory)


def plan_call(
    call: Call, ring_size: int, gpu: GPU, links: Links, *, most: int | None = None
) -> Plan:
    """Plan a call on a ring, beside the other ring sizes 1, 2, 4, ...

    Args:
        call: what is planned.
        ring_size: R.
        gpu: for which GPU.
        links: between any two of them.
        most: the largest other ring size; the larger of 64 and R where None.

    Raises:
        ValueError: `ring_size` is not positive.
    """
    ring = plan_ring(call, ring_size, gpu, links)
    limit = max(64, ring_size) if most is None else most
    sizes = [1 << i for i in range(limit.bit_length()) if 1 << i <= min(limit, call.n)]
    rings = tuple(
        ring if size == ring_size else plan_ring(call, size, gpu, links) for size in sizes
    )
    fitting = [one for one in {*rings, ring} if one.fits]

    best = min((one.ring_size for one in fitting), default=None)
    timed = [(one.step.total, one.ring_size) for one in fitting if one.step is not None]
    fastest = min(timed)[1] if timed else None
    forward = cost.attention_flops(call.problem, call.batch, call.head_dim)
    backward = cost.attention_flops(call.problem, call.batch, call.head_dim, backward=True)
    longest = largest_length(call, ring_size, gpu)
    known = any(one.step is not None for one in {*rings, ring})
    source = Source(call.backend, work.fitted().device) if known else None
    return Plan(
        call,
        gpu,
        (forward, backward),
        ring,
        longest,
        rings,
        best,
        fastest,
        untimed(call, ring_size),
        source,
        links,
    )
