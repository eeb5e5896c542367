"""A rank's plan: what it sends and receives in each round, and what it computes then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..layout import Layout
from .gathering import Gathered, gather, rounds_together
from .groups import Groups
from .heads import KeyClass, key_classes
from .messages import Message, piece_bound, pieces, shard_keys, shard_queries
from .own import own_problem, own_problems
from .problem import Problem
from .runs import RunList, runs


@dataclass(frozen=True, eq=False, slots=True)
class Round:
    """One exchange of a rank: a piece to send, a piece to receive, either may be None.

    Every rank counts the same rounds, so that the k-th posts of any two ranks match.
    """

    target: int
    sent: Message | None
    source: int
    received: Message | None


class RankPlan:
    """What one rank of the ring does, from numbers alone.

    Ring order: in round (s, p) a rank sends the p-th piece to `rank + s` and receives the p-th
    piece from `rank - s` (mod R), so that each rank sends and receives one piece at a time. Rounds
    of small messages form groups, which travel and are used together.
    """

    def __init__(self, problem: Problem, layout: Layout, rank: int, buffer_shards: int) -> None:
        self.problem = problem
        self.layout = layout
        self.rank = rank
        self.buffer_shards = buffer_shards
        self.classes: tuple[KeyClass, ...] = key_classes(problem)
        self.queries: Groups = shard_queries(problem, layout, rank)
        self.keys: Groups = shard_keys(problem, layout, rank)
        self.rounds = tuple(self._rounds())
        together = rounds_together(problem, layout, buffer_shards)
        self.groups = tuple(
            self.rounds[i : i + together] for i in range(0, len(self.rounds), together)
        )
        self._gathered: dict[int, Gathered] = {}
        self._remote: dict[int, tuple[RunList, ...]] = {}
        self._chunks: dict[int, RunList] = {}

    def _rounds(self) -> Iterator[Round]:
        size = self.layout.ring_size
        bound = piece_bound(self.problem, self.layout, self.buffer_shards)
        for step in range(1, size):
            target, source = (self.rank + step) % size, (self.rank - step) % size
            out = self._pieces(self.rank, target)
            into = self._pieces(source, self.rank)
            assert max(len(out), len(into)) <= bound, "piece_bound must bound every message"
            for p in range(bound):
                yield Round(
                    target,
                    out[p] if p < len(out) else None,
                    source,
                    into[p] if p < len(into) else None,
                )

    def _pieces(self, source: int, target: int) -> tuple[Message, ...]:
        return pieces(self.problem, self.layout, source, target, self.buffer_shards)

    def own_problem(self) -> Problem | None:
        """The rank's own rows as a sequence of their own, None where some rank's are none."""
        if not own_problems(self.problem, self.layout):
            return None
        return own_problem(self.problem, self.layout, self.rank)

    @property
    def isolated(self) -> bool:
        """Whether no row comes from another rank, and none goes to one."""
        return all(x.sent is None and x.received is None for x in self.rounds)

    def local_runs(self) -> RunList:
        """Runs of the rank's queries over its own keys (all key/value heads in one part)."""
        return self.chunk_runs(self.rank)

    def chunk_runs(self, owner: int) -> RunList:
        """Runs of another rank's queries over this rank's own keys, for the replicated layout."""
        if owner not in self._chunks:
            queries = shard_queries(self.problem, self.layout, owner)
            heads = tuple(range(self.problem.num_kv_heads))
            self._chunks[owner] = RunList(runs(self.problem, queries, self.keys, heads))
        return self._chunks[owner]

    def received(self, group: int) -> tuple[Message, ...]:
        """The messages of a group of rounds."""
        return tuple(x.received for x in self.groups[group] if x.received is not None)

    def gathered(self, group: int) -> Gathered:
        """The rows received in a group of rounds."""
        if group not in self._gathered:
            self._gathered[group] = gather(self.received(group), self.classes)
        return self._gathered[group]

    def remote_runs(self, group: int) -> tuple[RunList, ...]:
        """Runs over the rows received in a group of rounds, one list per key class."""
        if group not in self._remote:
            self._remote[group] = tuple(
                RunList(
                    runs(
                        self.problem,
                        self.queries,
                        Groups(self.problem, positions, queries=False),
                        key_class.heads,
                    )
                )
                for key_class, positions in zip(
                    self.classes, self.gathered(group).positions, strict=True
                )
            )
        return self._remote[group]


@lru_cache(maxsize=256)
def plan_rank(problem: Problem, layout: Layout, rank: int, buffer_shards: int = 2) -> RankPlan:
    """The cached plan of one rank.

    Args:
        problem: what is computed.
        layout: who holds which rows.
        rank: whose plan.
        buffer_shards: receive buffers hold at most this many times the shard's rows.
    """
    return RankPlan(problem, layout, rank, buffer_shards)
