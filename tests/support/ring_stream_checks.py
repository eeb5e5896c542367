"""Count the pairs that the stream tables of a ring's ranks hold."""

from __future__ import annotations

from collections import Counter

import numpy as np

from dilated_attention_pytorch.layout import Layout
from dilated_attention_pytorch.schedule import Problem, RankPlan, plan_rank
from dilated_attention_pytorch.schedule.received import Received, received
from dilated_attention_pytorch.schedule.ring_key_streams import key_tiles, received_key_tiles
from dilated_attention_pytorch.schedule.ring_streams import query_tiles
from dilated_attention_pytorch.schedule.streams import FREE, StreamTable

from .stream_checks import halves, streamed

# (query head, query position, key position)
Triple = tuple[int, int, int]


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
        both = halves(table, tile)
        written.update((head, int(x)) for some in both for x in some)
        for view, member, at, who, exact, weight, low, high in streamed(table, tile, block):
            for half, rows in enumerate(both):
                if not who >> half & 1:
                    continue
                if own_received:
                    assert places is not None
                    assert (places.head[rows] == head).all()
                    own = places.position[rows]
                else:
                    own = where[rows]
                if view.source == 1:
                    assert places is not None
                    kv_head = head // members
                    assert head // members + member == 0, "received rows have one head"
                    # Rows that are hidden are read nevertheless.
                    assert (places.head[at] == kv_head).all()
                    other = places.position[at]
                else:
                    other = where[at]
                count = np.broadcast_to((low <= at) & (at < high), (len(own), len(at)))
                if problem.is_causal and not who & FREE and view.source == 0 and not own_received:
                    count = count & (at >= rows[:, None] if keys else at <= rows[:, None])
                assert not exact >> half & 1 or count.all(), "what is whole has no masks"
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
