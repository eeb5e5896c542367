"""Peak bytes of a rank, moment by moment, with the tiles that the kernels work on.

Forward and backward each count what is alive in them: inputs and, in backward, what was saved;
the rank's results; receive and send buffers; the temporaries of the largest tile. All of it is
storage that the allocator sees; symmetric memory, 64 MiB a rank where it serves, comes on top.

A ring over NCCL keeps its message buffers from call to call, so a second step holds them all from
its beginning to its end (`message_buffers`): the peak is their sum and the most that anything else
needs at once. Over Gloo nothing is kept, and buffers come and go with the rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.eager import BLOCK
from ..layout import Layout
from ..schedule import Problem, key_classes
from ..schedule.gathering import rounds_together
from ..schedule.messages import piece_bound, piece_capacity
from ..typing import IntArray
from .message_buffers import kept_buffers
from .travel import received, sent

# Of each group of rounds, an empty one at either end: row-heads that come, that go, and whether
# what comes is gathered.
Groups = tuple[IntArray, IntArray, IntArray]


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak bytes of one rank, its inputs included, optimizer and other layers aside.

    Args:
        forward: in a forward whose results are saved for backward.
        backward: in the backward after it.
        kept: that stay when no call runs, and are part of both peaks: message buffers, and where
            a plan's rows are packed from and gathered to.
    """

    forward: int
    backward: int
    kept: int = 0

    @property
    def peak(self) -> int:
        """The larger of the two."""
        return max(self.forward, self.backward)


def _wide(itemsize: int) -> int:
    """Bytes of the type that sums are kept in."""
    return 8 if itemsize == 8 else 4


def whole_sequence(problem: Problem, *, batch: int, head_dim: int, itemsize: int) -> Memory:
    """One GPU with `gluon` or `triton`: no carry, no float32 gradients, no tiles in memory.

    Forward holds q, k, v, out and lse; backward also dout, lse and delta in the kernels' layout,
    and the gradients. Not counted: the tables, made once and kept, and `gluon`'s copies of inputs
    that TMA cannot read, which a call with contiguous ones does not make.
    """
    query = batch * problem.n * problem.num_heads
    keys = batch * problem.n * problem.num_kv_heads
    arrays = (2 * query + 2 * keys) * head_dim * itemsize
    gradients = (query + 2 * keys) * head_dim * itemsize
    return Memory(arrays + 4 * query, arrays + query * head_dim * itemsize + gradients + 12 * query)


def ring_rank(
    problem: Problem,
    layout: Layout,
    rank: int,
    *,
    batch: int,
    head_dim: int,
    itemsize: int,
    buffer_shards: int = 2,
    keep: bool = True,
) -> Memory:
    """One rank of a ring (or R = 1 with the backend `eager`), contiguous, layout `sharded`.

    For kernels that are given parts of the keys; `tiled_memory` knows those that stream them.

    Args:
        problem: what is computed.
        layout: who holds which rows.
        rank: which rank.
        batch: b.
        head_dim: d.
        itemsize: bytes of an element of query, key and value.
        buffer_shards: as in the call.
        keep: the second step and those after it where message buffers are kept (NCCL), which no
            first step exceeds; else any step where they are not (Gloo). Symmetric memory aside.
    """
    wide = _wide(itemsize)
    query = batch * layout.lengths[rank] * problem.num_heads
    keys = batch * layout.lengths[rank] * problem.num_kv_heads
    inputs = (query + 2 * keys) * head_dim * itemsize
    rounded = 0 if itemsize == wide else itemsize
    groups = groups_of(problem, layout, rank, buffer_shards)
    came, went, gathered = groups
    elements = 2 * batch * head_dim
    kept = kept_indices(groups)
    if keep:
        kept += kept_messages(groups, elements * itemsize, elements * wide)
    came, went = elements * came, elements * went
    # Groups k - 1, k and k + 1 with an empty one at either end.
    before, now, after = slice(0, -2), slice(1, -1), slice(2, None)
    both = came + went
    ahead = itemsize * both[after]
    waiting = itemsize * both[now] + ahead
    gathering = itemsize * 2 * came[now] * gathered[now] + ahead
    meeting = itemsize * came[now] + ahead
    first = itemsize * int(both[1]) if len(both) > 2 else 0
    # Heads that one tile holds: all of them at home, those of a class where rows travel.
    group = problem.num_heads // problem.num_kv_heads
    together = [range(problem.num_heads)]
    apart = [
        [g * group + member for g in key_class.heads for member in range(group)]
        for key_class in key_classes(problem)
    ]

    # Scores, their differences and weights; the last tile's result is still there.
    local, remote = (
        _tile(problem, heads, layout.lengths[rank], batch, head_dim, wide, 3, 2 + 2 * (rounded > 0))
        for heads in (together, apart)
    )
    carry = (query * head_dim + 2 * query) * wide
    # The last step makes lse, and out in the input's type.
    finishing = query * (3 * wide + head_dim * rounded)
    computing = [local, remote * int(came.any()), finishing]
    moments = [first + local, _most(waiting), _most(gathering), _most(meeting + remote), finishing]
    forward = inputs + kept + carry + max(computing if keep else moments)

    saved = inputs + 2 * query * head_dim * itemsize + 2 * query * wide
    gradients = (query + 2 * keys) * head_dim * wide
    # Of the group before, gradients on their way.
    home = wide * both[before]
    # Weights, their gradient, and that of the scores, whose product is a temporary.
    local, remote = (
        _tile(problem, heads, layout.lengths[rank], batch, head_dim, wide, 4, 1 + 3 * (rounded > 0))
        for heads in (together, apart)
    )
    rounding = (query + 2 * keys) * head_dim * rounded
    computing = [local, remote * int(came.any()), rounding]
    moments = [
        first + local,
        _most(waiting + home),
        _most(gathering + home),
        _most(meeting + home + wide * came[now] + remote * (came[now] > 0)),
        _most(meeting + home + wide * came[now] * (1 + gathered[now])),
        _most(ahead + wide * (came[now] + went[now])),
        rounding,
    ]
    backward = kept + saved + gradients + max(computing if keep else moments)
    return Memory(forward, backward, kept)


def _most(moments: IntArray) -> int:
    return int(moments.max(initial=0))


def kept_indices(groups: Groups) -> int:
    """Bytes that a plan keeps of where rows are packed from, in 32 bits, and gathered to, in 64."""
    came, went, gathered = groups
    return 4 * int(went.sum()) + 8 * int((came * gathered).sum())


def kept_messages(groups: Groups, row: int, wide_row: int) -> int:
    """`kept_buffers` of these groups."""
    came, went, gathered = (numbers.tolist() for numbers in groups)
    return kept_buffers(tuple(zip(came, went, gathered, strict=True)), row, wide_row)


def groups_of(problem: Problem, layout: Layout, rank: int, buffer_shards: int) -> Groups:
    """Row-heads that come and that go in each group of rounds, and whether they are gathered.

    With an empty group at either end.
    """
    rounds = [
        _pieces(problem, layout, rank, sizes(problem, layout, rank), buffer_shards, back=back)
        for sizes, back in ((received, True), (sent, False))
    ]
    together = rounds_together(problem, layout, buffer_shards)
    first = np.arange(0, len(rounds[0]), together)
    some = [*rounds, (rounds[0] > 0).astype(np.int64)]
    came, went, messages = (
        np.concatenate([[0], np.add.reduceat(x, first) if len(x) else x, [0]]) for x in some
    )
    return came, went, (messages > 1).astype(np.int64)


def _pieces(
    problem: Problem, layout: Layout, rank: int, sizes: IntArray, buffer_shards: int, *, back: bool
) -> IntArray:
    """Row-heads of each round's piece."""
    size = layout.ring_size
    bound = piece_bound(problem, layout, buffer_shards)
    step = np.arange(1, size)
    partner = (rank - step if back else rank + step) % size
    targets = [rank] * len(step) if back else partner.tolist()
    capacity = np.array(
        [piece_capacity(problem, layout, target, buffer_shards) for target in targets],
        dtype=np.int64,
    )
    left = sizes[partner][:, None] - np.arange(bound) * capacity[:, None]
    rows: IntArray = np.clip(left, 0, capacity[:, None]).reshape(-1)
    return rows


def _tile(
    problem: Problem,
    parts: Iterable[Sequence[int]],
    rows: int,
    batch: int,
    head_dim: int,
    wide: int,
    matrices: int,
    operands: int,
) -> int:
    """Temporaries of the largest tile of `kernels.eager`.

    Args:
        problem: what is computed.
        parts: query heads whose rows lie in one key part.
        rows: of the shard.
        batch: b.
        head_dim: d.
        wide: bytes of an element.
        matrices: (queries, keys) arrays that are alive at once.
        operands: (queries, d) arrays: the scaled query, and converted copies of 16-bit inputs.
    """
    largest = 0
    for branch, offsets in enumerate(problem.offsets):
        rate = problem.pattern.branches[branch].dilation_rate
        counts = (Counter(offsets[h] for h in part if offsets[h] is not None) for part in parts)
        heads = max((most for count in counts for most in count.values()), default=0)
        side = min(BLOCK, -(-min(problem.segment_length(branch), rows) // rate))
        largest = max(largest, heads * side * (matrices * side + operands * head_dim + 4))
    return batch * largest * wide
