"""Forward whose bits do not depend on the ring: rows are met in ascending global order.

Every rank meets the shards 0, 1, ... R-1 in turn (its own in its place). Rows of a tile that is not
complete wait for the rest of it, so each tile is computed once, whole, in one fixed shape.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..comm import Communicator, RankTask
from ..kernels.carry import Carry
from ..kernels.options import AlignedBackend, KernelOptions, KeyPart, Result
from ..schedule import Groups, KeyClass, RankPlan, Round, aligned_tiles, pieces, runs, unfinished
from ..typing import IntArray
from .indexing import index_tensor
from .lanes import finish
from .packing import head_index
from .shard import Shard, Transfer
from .shifted import fetch_queries


class _Waiting:
    """Rows of one key class whose tiles are not complete."""

    def __init__(self, key_class: KeyClass) -> None:
        self.key_class = key_class
        self.positions: IntArray = np.zeros(0, dtype=np.int64)
        self.part: KeyPart | None = None

    def add(self, part: KeyPart, positions: IntArray) -> None:
        """Append rows, whose positions ascend and exceed all before."""
        self.positions = np.concatenate([self.positions, positions])
        if self.part is None:
            self.part = part
            return
        mask = None
        if self.part.key_mask is not None and part.key_mask is not None:
            mask = torch.cat([self.part.key_mask, part.key_mask], 1)
        self.part = KeyPart(
            torch.cat([self.part.key, part.key], 1),
            torch.cat([self.part.value, part.value], 1),
            mask,
        )

    def keep(self, rows: IntArray) -> None:
        """Forget all but these rows."""
        self.positions = self.positions[rows]
        if self.part is None:
            return
        at = index_tensor(rows, self.part.key.device)
        mask = self.part.key_mask
        self.part = KeyPart(
            self.part.key[:, at], self.part.value[:, at], None if mask is None else mask[:, at]
        )


class _Accumulator:
    """Meets rows in ascending order and computes tiles as they become complete."""

    def __init__(
        self,
        plan: RankPlan,
        query: Tensor,
        shifted: dict[int, Tensor],
        carry: Carry,
        options: KernelOptions,
    ) -> None:
        self._plan, self._query, self._shifted = plan, query, shifted
        self._carry, self._options = carry, options
        # `select` gives no other where bits must not depend on the ring.
        self._backend = cast("AlignedBackend", options.backend)
        self._waiting = [_Waiting(key_class) for key_class in plan.classes]
        self._done = 0

    def absorb(self, parts: list[KeyPart], positions: tuple[IntArray, ...]) -> None:
        """Take rows, one part for each key class."""
        for waiting, part, at in zip(self._waiting, parts, positions, strict=True):
            waiting.add(part, at)

    def advance(self, frontier: int) -> None:
        """Compute the tiles that end before `frontier`: all their rows have come."""
        problem, block = self._plan.problem, self._backend.BLOCK
        for waiting in self._waiting:
            if waiting.part is None:
                continue
            keys = Groups(problem, waiting.positions, queries=False)
            found = runs(problem, self._plan.queries, keys, waiting.key_class.heads)
            for tile in aligned_tiles(problem, found, self._done, frontier, block):
                query = self._shifted.get(tile.run.branch, self._query)
                self._backend.forward_aligned(
                    query, waiting.part, [tile], self._carry, self._options
                )
            left = unfinished(problem, waiting.key_class, waiting.positions, frontier, block)
            waiting.keep(np.flatnonzero(left))
        self._done = frontier


def forward_rank_deterministic(
    plan: RankPlan, shard: Shard, options: KernelOptions, comm: Communicator
) -> RankTask[Result]:
    """As `forward_rank`, with out and lse bitwise equal for every contiguous split."""
    shifted = yield from fetch_queries(plan, shard.query, comm)
    carry = Carry(shard.query, options.lanes)
    accumulator = _Accumulator(plan, shard.query, shifted, carry, options)
    frontier = 0
    for source, length in enumerate(plan.layout.lengths):
        if source == plan.rank:
            yield from _send_all(plan, shard, comm)
            own = [head_index(c, shard.key.device) for c in plan.classes]
            accumulator.absorb(
                [
                    KeyPart(shard.key[:, :, heads], shard.value[:, :, heads], shard.key_mask)
                    for heads in own
                ],
                (plan.keys.positions,) * len(plan.classes),
            )
        else:
            yield from _receive_all(plan, source, shard, comm, accumulator)
        frontier += length
        accumulator.advance(frontier)
    return finish(carry, plan.queries, options, shard.query.dtype)


def _send_all(plan: RankPlan, shard: Shard, comm: Communicator) -> RankTask[None]:
    for target in range(plan.layout.ring_size):
        if target == plan.rank:
            continue
        for piece in pieces(plan.problem, plan.layout, plan.rank, target, plan.buffer_shards):
            yield from Transfer(plan, Round(target, piece, target, None), shard, comm).works


def _receive_all(
    plan: RankPlan, source: int, shard: Shard, comm: Communicator, accumulator: _Accumulator
) -> RankTask[None]:
    for piece in pieces(plan.problem, plan.layout, source, plan.rank, plan.buffer_shards):
        transfer = Transfer(plan, Round(source, None, source, piece), shard, comm)
        yield from transfer.works
        accumulator.absorb(transfer.parts(), piece.positions)
        accumulator.advance(max(int(p[-1]) for p in piece.positions if len(p)) + 1)
