"""torchscale's row shift over a ring: queries that are answered at another position.

In a shifted branch the output at t is that of the query at t' (`Problem.query_coordinates`), which
another rank may own. Those query rows travel once before the keys do, and their gradients travel
back after them; where there is no such query (t' past its segment or the sequence) a zero query
stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..comm import Communicator, RankTask
from ..layout import Layout
from ..schedule import Problem, RankPlan, Rows
from ..schedule.heads import branch_offsets, head_set
from ..typing import IntArray
from .indexing import index_tensor
from .trade import Blocks, trade


@dataclass(frozen=True, eq=False, slots=True)
class _Move:
    """Rows of one (branch, offset): `source` in the owner's storage, `target` in the reader's."""

    branch: int
    heads: Rows
    source: IntArray
    target: IntArray


def shifted_branches(problem: Problem) -> tuple[int, ...]:
    """Branches whose queries are shifted."""
    return tuple(i for i in range(problem.num_branches) if problem.shifted(i))


@lru_cache(maxsize=16)
def _owners(layout: Layout) -> tuple[IntArray, IntArray]:
    owner, row = np.empty(layout.n, dtype=np.int64), np.empty(layout.n, dtype=np.int64)
    for rank in range(layout.ring_size):
        positions = layout.positions(rank)
        owner[positions], row[positions] = rank, np.arange(len(positions))
    return owner, row


@lru_cache(maxsize=1024)
def _moves(problem: Problem, layout: Layout, source: int, target: int) -> tuple[_Move, ...]:
    owner, row = _owners(layout)
    every_head = tuple(range(problem.num_kv_heads))
    found = []
    for branch in shifted_branches(problem):
        segment, place = problem.query_coordinates(branch, layout.positions(target))
        asked = segment + place
        real = (place < problem.segment_length(branch)) & (asked < problem.n)
        at = np.where(real, asked, 0)
        real &= owner[at] == source
        rate = problem.pattern.branches[branch].dilation_rate
        for offset in branch_offsets(problem, branch):
            heads = head_set(problem, branch, offset, every_head)
            here = np.flatnonzero(real & (place % rate == offset))
            if heads is not None and here.size:
                found.append(_Move(branch, heads.query, row[at[here]], here))
    return tuple(found)


def _at(rows: IntArray, heads: Rows, device: torch.device) -> tuple[slice, Tensor, Tensor]:
    """Index of `tensor[:, rows, heads]`."""
    return slice(None), index_tensor(rows, device)[:, None], index_tensor(heads.asarray(), device)


def _read(tensor: Tensor, rows: IntArray, heads: Rows, out: Tensor) -> None:
    """Write `tensor[:, rows, heads]` into a block of a message."""
    _, *places = _at(rows, heads, tensor.device)
    torch.ops.aten.index.Tensor_out(tensor, [None, *places], out=out)


def _carry(
    out: tuple[_Move, ...],
    target: int,
    into: tuple[_Move, ...],
    source: int,
    read: Callable[[_Move, Tensor], None],
    like: Tensor,
    comm: Communicator,
) -> RankTask[list[Tensor]]:
    """Send what `read` finds for each move of `out`; the blocks of `into`, as they came."""
    b, _, _, d = like.shape

    def room(moves: tuple[_Move, ...]) -> Blocks:
        return Blocks([(b, len(m.source), len(m.heads), d) for m in moves], like, comm)

    sent = room(out)
    for move, block in zip(out, sent.views, strict=True):
        read(move, block)
    if target == comm.rank:
        return sent.views
    received = room(into)
    yield from trade("query", target, sent.flat, source, received.flat, comm)
    return received.views


def fetch_queries(plan: RankPlan, query: Tensor, comm: Communicator) -> RankTask[dict[int, Tensor]]:
    """The query tensor of each shifted branch: (b, n_rank, H, d), zero where nobody asks."""
    problem, layout, rank, size = plan.problem, plan.layout, plan.rank, plan.layout.ring_size
    shifted = {branch: torch.zeros_like(query) for branch in shifted_branches(problem)}

    def read(move: _Move, block: Tensor) -> None:
        _read(query, move.source, move.heads, block)

    def place(moves: tuple[_Move, ...], blocks: list[Tensor]) -> None:
        for move, block in zip(moves, blocks, strict=True):
            shifted[move.branch][_at(move.target, move.heads, query.device)] = block

    for step in range(size if shifted else 0):
        target, source = (rank + step) % size, (rank - step) % size
        out, into = _moves(problem, layout, rank, target), _moves(problem, layout, source, rank)
        place(into, (yield from _carry(out, target, into, source, read, query, comm)))
    return shifted


def return_gradients(
    plan: RankPlan, shifted: dict[int, Tensor], dquery: Tensor, comm: Communicator
) -> RankTask[None]:
    """Add the gradients of shifted queries to `dquery` of the ranks that own those queries."""
    problem, layout, rank, size = plan.problem, plan.layout, plan.rank, plan.layout.ring_size

    def read(move: _Move, block: Tensor) -> None:
        _read(shifted[move.branch], move.target, move.heads, block)

    def add(moves: tuple[_Move, ...], blocks: list[Tensor]) -> None:
        for move, block in zip(moves, blocks, strict=True):
            dquery[_at(move.source, move.heads, dquery.device)] += block

    for step in range(size if shifted else 0):
        target, source = (rank + step) % size, (rank - step) % size
        out, into = _moves(problem, layout, source, rank), _moves(problem, layout, rank, target)
        add(into, (yield from _carry(out, source, into, target, read, dquery, comm)))
