"""What a call costs, from the schedule: pairs, FLOPs, bytes on the wire, bytes held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from .layout import Layout
from .schedule import Problem, key_classes
from .schedule.gathering import steps_together
from .schedule.messages import message, message_bound, piece_capacity
from .schedule.partials import partial_blocks


def visible_pairs(problem: Problem) -> int:
    """Number of (query, key, head, branch) pairs that are scored, in closed form per segment."""
    bounds = problem.cu_seqlens or (0, problem.n)
    total = 0
    for branch in range(problem.num_branches):
        w = problem.segment_length(branch)
        rate = problem.pattern.branches[branch].dilation_rate
        lengths: Counter[int] = Counter()
        for start, end in pairwise(bounds):
            full, tail = divmod(end - start, w)
            lengths[w] += full
            lengths[tail] += 1
        heads = Counter(offset for offset in problem.offsets[branch] if offset is not None)
        for length, segments in lengths.items():
            for offset, count in heads.items():
                rows = max(0, -((offset - length) // rate))
                pairs = rows * (rows + 1) // 2 if problem.is_causal else rows * rows
                total += segments * count * pairs
    return total


def pairs_below(problem: Problem, positions: Sequence[int]) -> list[int]:
    """Pairs that the queries before each position score, in closed form; one document.

    A rank that holds the queries `a:b` scores the difference of the values at b and a, and the
    queries before n score `visible_pairs`.

    Raises:
        ValueError: packed documents, which this does not count.
    """
    if problem.cu_seqlens is not None:
        raise ValueError("pairs_below counts one document, got cu_seqlens")
    # Up to here the pairs of one offset fit 64 bits; those of all heads may not.
    at = np.array(positions, dtype=np.int64 if problem.n < 1 << 31 else object)
    total = np.zeros(len(at), dtype=object)
    for branch, offsets in enumerate(problem.offsets):
        w = problem.segment_length(branch)
        rate = problem.pattern.branches[branch].dilation_rate
        full, place = at // w, at % w
        length = np.minimum(w, problem.n - full * w)
        for offset, heads in Counter(o for o in offsets if o is not None).items():
            whole = max(0, -((offset - w) // rate))
            keys, asked = (np.maximum(0, -((offset - x) // rate)) for x in (length, place))
            if problem.is_causal:
                pairs = full * (whole * (whole + 1) // 2) + asked * (asked + 1) // 2
            else:
                pairs = full * whole * whole + asked * keys
            total += heads * pairs.astype(object)
    return [int(x) for x in total]


def attention_flops(problem: Problem, batch: int, head_dim: int, *, backward: bool = False) -> int:
    """4 b d pairs forward and 2.5 times that backward: the contract's count, not a kernel's."""
    forward = 4 * batch * head_dim * visible_pairs(problem)
    return forward * 5 // 2 if backward else forward


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one rank sends in a call, masks apart."""

    forward: int
    backward: int


def rank_traffic(
    problem: Problem,
    layout: Layout,
    rank: int,
    *,
    replicated: bool,
    batch: int,
    head_dim: int,
    itemsize: int,
) -> Traffic:
    """Bytes that a rank sends, forward and backward.

    `sharded`: forward each row and key/value head (key and value) that a receiver's queries see,
    once; backward the same again, and the gradients of the rows it received, in float32 (float64
    for float64 inputs). `replicated` (own keys passed): partial outs and lse or gradients of
    queries in that precision, then its finished rows to every rank.
    """
    wide = 8 if itemsize == 8 else 4
    others = [other for other in range(layout.ring_size) if other != rank]
    if replicated:
        own = batch * layout.lengths[rank] * problem.num_heads
        rows = sum(
            len(block.rows) * len(block.heads)
            for other in others
            for block in partial_blocks(problem, layout, rank, other)
        )
        return Traffic(
            batch * rows * (head_dim + 1) * wide + len(others) * own * (head_dim * itemsize + wide),
            batch * rows * head_dim * wide + len(others) * own * head_dim * itemsize,
        )
    row = 2 * batch * head_dim
    sent = sum(_row_heads(problem, layout, rank, other) for other in others)
    received = sum(_row_heads(problem, layout, other, rank) for other in others)
    return Traffic(sent * row * itemsize, sent * row * itemsize + received * row * wide)


def _row_heads(problem: Problem, layout: Layout, source: int, target: int) -> int:
    found = message(problem, layout, source, target)
    classes = key_classes(problem)
    return sum(len(r) * len(c.heads) for r, c in zip(found.rows, classes, strict=True))


def _groups_received(
    problem: Problem, layout: Layout, rank: int, buffer_shards: int
) -> tuple[int, ...]:
    """Row-heads that a rank receives at a time: a piece, or messages of several ranks."""
    capacity = piece_capacity(problem, layout, rank, buffer_shards)
    size = layout.ring_size
    sizes = [_row_heads(problem, layout, (rank - step) % size, rank) for step in range(1, size)]
    steps = steps_together(problem, layout, buffer_shards)
    return tuple(min(capacity, sum(sizes[i : i + steps])) for i in range(0, len(sizes), steps))


def rank_memory(
    problem: Problem,
    layout: Layout,
    rank: int,
    *,
    batch: int,
    head_dim: int,
    itemsize: int,
    buffer_shards: int = 2,
) -> int:
    """Peak bytes of one rank's forward + backward, layout `sharded`, tiles apart.

    Backward holds q, k, v, out, dout and lse of the shard, delta, float32 dq, dk, dv and, for
    16-bit inputs, their rounded copies; two groups of rows arriving and two leaving, and their
    gradients in float32, two each way. A group that is the only one arrives while nothing else
    does: its rows, their gradients, and these apart for each message.
    """
    wide = 8 if itemsize == 8 else 4
    query = batch * layout.lengths[rank] * problem.num_heads
    keys = batch * layout.lengths[rank] * problem.num_kv_heads
    shard = (3 * query + 2 * keys) * head_dim * itemsize
    rounded = 0 if itemsize == wide else itemsize
    gradients = (query + 2 * keys) * head_dim * (wide + rounded)
    statistics = 2 * query * wide
    groups = _groups_received(problem, layout, rank, buffer_shards)
    most = 2 * batch * max(groups, default=0) * head_dim
    travelling = 4 * itemsize + 4 * wide if len(groups) > 1 else itemsize + 2 * wide
    return shard + gradients + statistics + most * travelling


def replicated_memory(
    problem: Problem, layout: Layout, rank: int, *, batch: int, head_dim: int, itemsize: int
) -> int:
    """Peak bytes of one rank's forward + backward, layout `replicated`, tiles apart.

    Whole: q, out and dout, then dq as well; lse and delta. Of the rank's rows: k, v and their
    float32 gradients, a copied chunk of q and dout, its gradient and the rank's own. The peak is
    either while a chunk is differentiated or while dq is put together. With R = 1 it is
    `rank_memory`: the layouts are one call.
    """
    if layout.ring_size == 1:
        return rank_memory(problem, layout, rank, batch=batch, head_dim=head_dim, itemsize=itemsize)
    wide = 8 if itemsize == 8 else 4
    whole = batch * layout.n * problem.num_heads
    rows = batch * layout.lengths[rank]
    keys = 2 * rows * problem.num_kv_heads * head_dim * (itemsize + wide)
    chunk = rows * problem.num_heads * head_dim
    statistics = 2 * whole * wide
    differentiating = 2 * chunk * (itemsize + wide)
    gathering = whole * head_dim * itemsize + chunk * (wide + itemsize)
    return 3 * whole * head_dim * itemsize + statistics + keys + max(differentiating, gathering)


@dataclass(frozen=True, slots=True)
class Link:
    """A transfer of x bytes takes `latency + x / bandwidth` seconds in one direction.

    Args:
        latency: seconds of the smallest message.
        bandwidth: bytes a second.
        message: seconds that each further message adds to those that travel at the same time.
    """

    latency: float
    bandwidth: float
    message: float = 0.0

    def seconds(self, nbytes: float, messages: int = 1) -> float:
        """Time until so many bytes in so many messages that travel at once have come to a rank."""
        return self.latency + (messages - 1) * self.message + nbytes / self.bandwidth


@dataclass(frozen=True, slots=True)
class Links:
    """What is known of the ways between the ranks of a group.

    Args:
        p2p: batched sends and receives.
        symmetric: copy engines that pull out of symmetric memory; None where that cannot serve or
            is not known.
        source: where the numbers come from.
        refusal: why symmetric memory is None.
    """

    p2p: Link
    symmetric: Link | None
    source: str
    refusal: str | None = None


# NCCL's send and receive between two H100 over 18 NVLink 4 links moved 8, 64 and 256 MiB at 145,
# 262 and 299 GB/s in each direction; this line meets the three within 4 %.
BUILT_IN: Final = Links(
    p2p=Link(latency=31e-6, bandwidth=311e9),
    symmetric=None,
    source="two H100 over NVLink",
    refusal="a ring measures it before its first call",
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The most that one exchange of a call brings to any rank, from what all ranks know.

    Args:
        label: what travels: `key_value`, `gradient`, `partial` or `result`.
        messages: of so many ranks, at the same time.
        nbytes: of all messages, key masks apart.
    """

    label: str
    messages: int
    nbytes: int


def exchanges(
    problem: Problem,
    layout: Layout,
    *,
    replicated: bool,
    batch: int,
    head_dim: int,
    itemsize: int,
    buffer_shards: int = 2,
    deterministic: bool = False,
) -> tuple[Exchange, ...]:
    """What travels at once in each kind of exchange of a call.

    Args:
        problem: what is computed.
        layout: who holds which rows.
        replicated: layout `replicated`, not `sharded`.
        batch: b.
        head_dim: d.
        itemsize: bytes of an element of query, key and value.
        buffer_shards: as in the call.
        deterministic: as in the call: in a contiguous ring's forward no messages of several ranks
            travel at once then, however small.
    """
    wide = 8 if itemsize == 8 else 4
    longest = max(layout.lengths)
    if replicated:
        rows = batch * longest * problem.num_heads
        return (
            Exchange("partial", 1, rows * (head_dim + 1) * wide),
            Exchange("result", 1, rows * head_dim * itemsize),
        )
    fullest = layout.lengths.index(longest)
    most = min(
        message_bound(problem, layout), piece_capacity(problem, layout, fullest, buffer_shards)
    )
    messages = steps_together(problem, layout, buffer_shards)
    elements = 2 * batch * head_dim * most
    first = 1 if deterministic and layout.contiguous else messages
    return (
        Exchange("key_value", first, first * elements * itemsize),
        Exchange("gradient", messages, messages * elements * wide),
    )


def fastest(links: Links, exchange: Exchange) -> str:
    """The transport that is done first, `p2p` or `symmetric`; the same on all ranks."""
    work = exchange.nbytes, exchange.messages
    if links.symmetric is None or links.symmetric.seconds(*work) >= links.p2p.seconds(*work):
        return "p2p"
    return "symmetric"
