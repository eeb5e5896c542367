"""Count the pairs that the stream tables of a ring's ranks hold."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from dilated_attention_pytorch.layout import Layout
from dilated_attention_pytorch.schedule import Problem, RankPlan, plan_rank
from dilated_attention_pytorch.schedule.received import Received, received
from dilated_attention_pytorch.schedule.ring_key_streams import key_tiles, received_key_tiles
from dilated_attention_pytorch.schedule.ring_streams import query_tiles
from dilated_attention_pytorch.schedule.streams import FREE, WHOLE, StreamTable

IntArray = npt.NDArray[np.int64]
# (query head, query position, key position)
Triple = tuple[int, int, int]


def _block(table: StreamTable, first: int, rate: int, view: int, block: int) -> IntArray:
    """Rows of a block, in the sequence that the view is of."""
    seen = table.views[view]
    residue, row = first % rate, first // rate
    assert seen.rate == rate
    assert residue < seen.residues
    return residue + rate * np.arange(row, min(row + block, seen.rows))


def in_order(edges: np.ndarray, ends: list[int]) -> None:
    """Whether the edges of a tile come as kernels rely on it; `ends` count from the first."""
    *own_ends, end0, end1 = ends
    assert min(end0, end1) == 0, "one half at most meets edges as pieces"
    for half, (own_end, whole_end) in enumerate(zip(own_ends, (end0, end1), strict=True)):
        mine = edges[:, 4] >> half & 1 > 0
        assert (edges[:whole_end, 4] & WHOLE << half > 0).all()
        assert own_end >= whole_end
        assert mine[:own_end].all()
        assert own_end == len(edges) or not mine[own_end]


def _streamed(table: StreamTable, tile: int, block: int):
    """(source, member, rows, who, weight, begin, end) of every block of a tile."""
    begin, end, edge_begin, edge_end, *ends = table.tiles[tile, 5:].tolist()
    edges = table.edges[edge_begin:edge_end]
    in_order(edges, [end - edge_begin for end in ends])
    for blocks, weight, view, member, residue, row, rate, _ in table.pieces[begin:end].tolist():
        for j in range(blocks):
            at = _block(table, residue + (row + j * block) * rate, rate, view, block)
            assert len(at) == block, "pieces are whole blocks"
            yield table.views[view].source, member, at, 3, weight, 0, at[-1] + 1
    for first, rate, view, weight, who, low, high, member in edges.tolist():
        at = _block(table, first, rate, view, block)
        yield table.views[view].source, member, at, who, weight, low, high


class _Places:
    """(key/value head, position) of the rows of a sequence of received ones."""

    def __init__(self, rows: Received) -> None:
        self.head = np.full(rows.rows, -1)
        self.position = np.full(rows.rows, -1)
        for head, (positions, first, step) in enumerate(
            zip(rows.positions, rows.first, rows.step, strict=True)
        ):
            at = first + step * np.arange(len(positions))
            self.head[at], self.position[at] = head, positions


def _count(
    plan: RankPlan,
    table: StreamTable | None,
    block: int,
    found: Counter[Triple],
    *,
    keys: bool,
    group: int | None = None,
    own_received: bool = False,
) -> Counter[tuple[int, int]]:
    """Add a table's pairs; returns which (head, row) its tiles write."""
    written: Counter[tuple[int, int]] = Counter()
    if table is None:
        return written
    problem = plan.problem
    members = problem.num_heads // problem.num_kv_heads
    where = plan.layout.positions(plan.rank)
    places = None if group is None else _Places(received(plan, group))
    for head, tile in table.programs.tolist():
        first0, rows0, first1, rows1, step = table.tiles[tile, :5].tolist()
        halves = [first0 + step * np.arange(rows0), first1 + step * np.arange(rows1)]
        written.update((head, int(x)) for some in halves for x in some)
        for source, member, at, who, weight, low, high in _streamed(table, tile, block):
            for half, rows in enumerate(halves):
                if not who >> half & 1:
                    continue
                if own_received:
                    assert places is not None
                    assert (places.head[rows] == head).all()
                    own = places.position[rows]
                else:
                    own = where[rows]
                if source == 1:
                    assert places is not None
                    kv_head = head // members
                    assert head // members + member == 0, "received rows have one head"
                    # Rows that are hidden are read nevertheless.
                    assert (places.head[at] == kv_head).all()
                    other = places.position[at]
                else:
                    other = where[at]
                count = np.broadcast_to((low <= at) & (at < high), (len(own), len(at)))
                if problem.is_causal and not who & FREE and source == 0 and not own_received:
                    count = count & (at >= rows[:, None] if keys else at <= rows[:, None])
                for i, j in np.argwhere(count).tolist():
                    p, k = int(own[i]), int(other[j])
                    if keys:
                        found[head * members + member, k, p] += weight
                    else:
                        found[head, p, k] += weight
    return written


def pairs_of_queries(plan: RankPlan, half: int, block: int) -> Counter[Triple] | None:
    """What a rank's query tiles compute; None where there are none."""
    tiles = query_tiles(plan, half, block)
    if tiles is None:
        return None
    found: Counter[Triple] = Counter()
    if tiles.late is not None:
        early = _count(plan, tiles.early, block, found, keys=False)
        late = _count(plan, tiles.late, block, found, keys=False, group=0)
        own = _count(plan, tiles.own, block, Counter(), keys=False)
        assert early + late == own
        return found
    own = _count(plan, tiles.own, block, found, keys=False)
    for group, table in enumerate(tiles.groups):
        some = _count(plan, table, block, found, keys=False, group=group)
        assert some <= own
    return found


def pairs_of_keys(
    problem: Problem, layout: Layout, half: int, block: int, buffer_shards: int
) -> Counter[Triple] | None:
    """What all ranks' key tiles compute, for own keys and for received ones."""
    found: Counter[Triple] = Counter()
    for rank in range(layout.ring_size):
        plan = plan_rank(problem, layout, rank, buffer_shards)
        own = key_tiles(plan, half, block)
        if own is None:
            return None
        kept = _count(plan, own.kept, block, found, keys=True)
        sent = _count(plan, own.sent, block, found, keys=True)
        heads = problem.num_kv_heads
        assert Counter((int(x) % heads, int(x) // heads) for x in own.places) == sent
        assert len(set(own.slots.tolist())) == len(own.slots) == sent.total()
        assert not set(kept) & set(sent)
        for planned in plan.rounds:
            if planned.sent is not None:
                for key_class, rows in zip(plan.classes, planned.sent.rows, strict=True):
                    assert {(h, int(x)) for h in key_class.heads for x in rows} <= set(sent)
        for group in range(len(plan.groups)):
            if not plan.received(group):
                continue
            table = received_key_tiles(plan, group, half, block)
            if table is None:
                return None
            rows = _count(plan, table, block, found, keys=True, group=group, own_received=True)
            assert set(rows.values()) == {1}
            assert rows.total() == received(plan, group).rows, "every received row has a gradient"
    return found
