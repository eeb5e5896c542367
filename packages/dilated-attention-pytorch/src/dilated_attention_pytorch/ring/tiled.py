"""A ring on kernels that stream the keys of all ranks past tiles of a rank's own rows.

Where all received rows come at once, tiles of queries that see none of them are worked on while
they travel, and the others after that, in one launch over own and received keys: no partial result
is ever stored. Otherwise all tiles begin with the own keys, in float32, and each group of received
rows is added to the tiles that see some of it.

In backward likewise. Gradients of own keys that travelled are kept apart, in float32, until those
of other ranks' queries have come home.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..comm import Communicator, RankTask
from ..kernels.options import KernelOptions, KeyPart, Result
from ..kernels.tiles import TileBackend, Tiles
from ..schedule import KeyClass, Message, Problem, RankPlan
from ..schedule.ring_key_streams import KeyTiles, key_tiles, received_key_tiles
from ..schedule.ring_streams import QueryTiles, query_tiles
from ..schedule.streams import StreamTable
from .homeward import Homeward, come_home, go_home
from .indexing import index_tensor
from .packing import places_of
from .shard import Shard, arrive, collect, depart

Gradients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class TiledPlan:
    """A rank's tiles, of queries in forward and in backward, and of own and received keys."""

    forward: QueryTiles
    backward: QueryTiles
    keys: KeyTiles
    received: tuple[StreamTable | None, ...]


@lru_cache(maxsize=256)
def tiled_plan(
    plan: RankPlan, half: int, forward_block: int, backward_block: int, most_views: int
) -> TiledPlan | None:
    """The tiles of a rank; None where its own or the received rows do not fit them."""
    forward = query_tiles(plan, half, forward_block)
    backward = query_tiles(plan, half, backward_block)
    keys = key_tiles(plan, half, backward_block)
    if forward is None or backward is None or keys is None:
        return None
    received: list[StreamTable | None] = []
    for group in range(len(plan.groups)):
        table = None
        if plan.received(group):
            table = received_key_tiles(plan, group, half, backward_block)
            if table is None:
                return None
        received.append(table)
    tables = (*_of(forward), *_of(backward), keys.kept, *received)
    if any(table is not None and len(table.views) > most_views for table in tables):
        return None
    return TiledPlan(forward, backward, keys, tuple(received))


def _of(tiles: QueryTiles) -> tuple[StreamTable | None, ...]:
    return (tiles.own, tiles.late, *tiles.groups)


def of_rank(plan: RankPlan, options: KernelOptions, shard: Shard) -> TiledPlan | None:
    """The rank's tiles; None where there are no such kernels, or none for its rows."""
    backend = options.tiles
    if backend is None or shard.key_mask is not None:
        return None
    blocks = (backend.block(shard.query.shape[3], backward=x) for x in (False, True))
    return tiled_plan(plan, backend.HALF, *blocks, backend.MOST_VIEWS)


def _joined(parts: Sequence[KeyPart]) -> tuple[Tensor, Tensor]:
    """Received keys and values as (b, rows, 1, d): all classes, heads fastest, as they lie."""
    rows = sum(part.key.shape[1] * part.key.shape[2] for part in parts)
    b, _, _, d = parts[0].key.shape

    def joined(first: Tensor) -> Tensor:
        return first.as_strided((b, rows, 1, d), (rows * d, d, d, 1), first.storage_offset())

    return joined(parts[0].key), joined(parts[0].value)


@dataclass(slots=True)
class _Queries:
    """The launches of one direction over the tiles of queries, in order."""

    problem: Problem
    tiles: QueryTiles

    @property
    def wide(self) -> bool:
        """Whether results are added up, in float32."""
        return self.tiles.late is None and any(x is not None for x in self.tiles.groups)

    def own(self) -> Tiles:
        """What needs no received row."""
        early = self.tiles.early
        return Tiles.of(self.problem, self.tiles.own if early is None else early)

    def after(self, group: int) -> Tiles | None:
        """What a group of received rows allows."""
        if self.tiles.late is not None:
            return Tiles.of(self.problem, self.tiles.late)
        table = self.tiles.groups[group]
        return None if table is None else Tiles.of(self.problem, table, masked=False, resume=True)


def _empty(like: Tensor, table: StreamTable, dtype: torch.dtype) -> Tensor:
    """Contiguous memory for a result, 0 where no tile will write."""
    make = torch.empty if table.covered else torch.zeros
    return make(like.shape, dtype=dtype, device=like.device)


def forward_tiled(
    plan: RankPlan,
    tiled: TiledPlan,
    shard: Shard,
    options: KernelOptions,
    comm: Communicator,
) -> RankTask[Result]:
    """(out, lse) of the rank's own rows over the keys of all ranks."""
    backend = _backend(options)
    ahead = depart(plan, 0, shard, comm)
    query, key, value = (backend.readable(x) for x in (shard.query, shard.key, shard.value))
    launches = _Queries(options.problem, tiled.forward)
    dtype = torch.float32 if launches.wide else query.dtype
    out = _empty(query, tiled.forward.own, dtype)
    lse = torch.full(query.shape[:3], -torch.inf, dtype=torch.float32, device=query.device)
    if query.numel():
        own = ((key,), (value,))
        backend.forward_tiles(launches.own(), query, own, out, lse, options.scale)
    for group in range(len(plan.groups)):
        transfers, ahead = ahead, depart(plan, group + 1, shard, comm)
        yield from arrive(transfers)
        parts = collect(plan, group, transfers)
        tiles = launches.after(group)
        if parts and tiles is not None:
            keys, values = _joined(parts)
            both = ((key, keys), (value, values))
            backend.forward_tiles(tiles, query, both, out, lse, options.scale)
            del keys, values, both
        # Before the next group's buffers are made.
        del parts, transfers
    return Result(out.to(query.dtype), lse)


def _backend(options: KernelOptions) -> TileBackend:
    assert options.tiles is not None
    return options.tiles


class _OwnKeys:
    """Gradients of the rank's own keys and values."""

    def __init__(self, plan: RankPlan, tiles: KeyTiles, key: Tensor, half: int) -> None:
        b, _, _, d = key.shape
        self._plan, self._tiles = plan, tiles
        self.dkey, self.dvalue = (_empty(key, tiles.kept, key.dtype) for _ in range(2))
        rows = len(tiles.sent.programs) * 2 * half
        shape = (b, rows, 1, d)
        self.travelled = tuple(
            torch.empty(shape, dtype=torch.float32, device=key.device) for _ in range(2)
        )

    def add(self, message: Message, arrived: Tensor) -> None:
        """Add the gradients that other ranks' queries gave the rows of a message."""
        b, rows, _, d = self.travelled[0].shape
        heads, device = self.dkey.shape[2], self.dkey.device
        at = _slots(self._tiles, message, self._plan.classes, heads, device)
        # No row and head occurs twice, so the sums do not depend on an order.
        for kept, came in zip(self.travelled, arrived.view(2, b, len(at), d), strict=True):
            kept.view(b, rows, d).index_add_(1, at, came)

    def finish(self) -> tuple[Tensor, Tensor]:
        """(dk, dv), with the rows that travelled in their places."""
        b, rows, _, d = self.travelled[0].shape
        if rows:
            places, slots = _places(self._tiles, self.dkey.device)
            for whole, kept in zip((self.dkey, self.dvalue), self.travelled, strict=True):
                some = kept.view(b, rows, d).index_select(1, slots).to(whole.dtype)
                whole.view(b, -1, d).index_copy_(1, places, some)
        return self.dkey, self.dvalue


@lru_cache(maxsize=256)
def _places(tiles: KeyTiles, device: torch.device) -> tuple[Tensor, Tensor]:
    return index_tensor(tiles.places, device), index_tensor(tiles.slots, device)


@lru_cache(maxsize=1024)
def _slots(
    tiles: KeyTiles,
    message: Message,
    classes: tuple[KeyClass, ...],
    heads: int,
    device: torch.device,
) -> Tensor:
    """Where the gradients of a message's rows are kept, in its order."""
    places = places_of(message, classes, heads)
    order = np.argsort(tiles.places)
    at = order[np.searchsorted(tiles.places[order], places)]
    assert np.array_equal(tiles.places[at], places), "every row that travels is in a sent tile"
    return index_tensor(tiles.slots[at], device)


def backward_tiled(
    plan: RankPlan,
    tiled: TiledPlan,
    shard: Shard,
    result: Result,
    dout: Tensor,
    dlse: Tensor | None,
    options: KernelOptions,
    comm: Communicator,
) -> RankTask[Gradients]:
    """(dq, dk, dv) of the rank's own rows for the sum of all ranks' losses."""
    backend, scale, problem = _backend(options), options.scale, options.problem
    ahead = depart(plan, 0, shard, comm)
    query, key, value, dout = (
        backend.readable(x) for x in (shard.query, shard.key, shard.value, dout)
    )
    launches = _Queries(problem, tiled.backward)
    dquery = _empty(query, tiled.backward.own, torch.float32 if launches.wide else query.dtype)
    own = _OwnKeys(plan, tiled.keys, key, backend.HALF)
    statistics = backend.statistics(dout, dlse, result) if query.numel() else (dout, dout)
    if query.numel():
        backend.dquery_tiles(
            launches.own(), query, ((key,), (value,)), dout, statistics, dquery, scale
        )
        streamed = (query, dout)
        kept = Tiles.of(problem, tiled.keys.kept)
        sent = Tiles.of(problem, tiled.keys.sent, stacked=True)
        gradients = own.dkey, own.dvalue
        backend.dkey_tiles(kept, key, value, streamed, statistics, gradients, scale)
        travelled = own.travelled[0], own.travelled[1]
        backend.dkey_tiles(sent, key, value, streamed, statistics, travelled, scale)
    home: list[Homeward] = []
    for group in range(len(plan.groups)):
        transfers, ahead = ahead, depart(plan, group + 1, shard, comm)
        yield from arrive(transfers)
        parts = collect(plan, group, transfers)
        gradient: Tensor | None = None
        if parts:
            keys, values = _joined(parts)
            tiles, table = launches.after(group), tiled.received[group]
            assert table is not None
            if tiles is not None:
                backend.dquery_tiles(
                    *(tiles, query, ((key, keys), (value, values)), dout, statistics, dquery, scale)
                )
            gradient = comm.workspace.empty(2 * keys.numel(), torch.float32, key.device)
            flat = gradient.view(2, *keys.shape)
            backend.dkey_tiles(
                Tiles.of(problem, table, masked=False),
                *(keys, values, (query, dout), statistics, (flat[0], flat[1]), scale),
            )
            del keys, values, flat
        del parts, transfers
        yield from come_home(home, own.add)
        home = go_home(plan, group, gradient, own.travelled[0], comm)
        del gradient
    yield from come_home(home, own.add)
    return (dquery.to(query.dtype), *own.finish())
