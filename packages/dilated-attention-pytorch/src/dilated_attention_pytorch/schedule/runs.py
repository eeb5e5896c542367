"""Runs: the query rows and key rows of one (branch, offset, segment) that meet on one rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .groups import Groups
from .heads import HeadSet, branch_offsets, head_set
from .problem import Problem
from .rows import Rows


@dataclass(frozen=True, slots=True)
class Run:
    """Attention of `query` rows over `key` rows: all pairs, or the causal ones among them.

    Args:
        branch: branch number i.
        offset: o of the heads in `heads`.
        segment: global position of the segment's first token; row x stands at
            `segment + x * r + offset`.
        heads: which heads.
        query: row numbers in the rank's query storage.
        query_x: their numbers x within (segment, offset).
        key: row numbers in the key part's storage.
        key_x: their numbers x.
        masked: whether causality hides some of the pairs.
    """

    branch: int
    offset: int
    segment: int
    heads: HeadSet
    query: Rows
    query_x: Rows
    key: Rows
    key_x: Rows
    masked: bool

    def tiles(self, block: int) -> Iterator[Run]:
        """The run cut into tiles of at most `block` x `block` rows, empty ones left out."""
        for a in range(0, len(self.query), block):
            query, query_x = self.query.part(a, a + block), self.query_x.part(a, a + block)
            for b in range(0, len(self.key), block):
                key_x = self.key_x.part(b, b + block)
                masked = self.masked and key_x.last > query_x.first
                if self.masked and key_x.first > query_x.last:
                    break
                yield Run(
                    self.branch,
                    self.offset,
                    self.segment,
                    self.heads,
                    query,
                    query_x,
                    self.key.part(b, b + block),
                    key_x,
                    masked,
                )


class RunList:
    """The runs of one part, which a plan keeps, so that a kernel can keep what it makes of them.

    Lists are equal only if they are the same object.
    """

    __slots__ = ("_by_branch", "_members")

    def __init__(self, members: Iterable[Run]) -> None:
        self._members = tuple(members)
        self._by_branch: dict[int, RunList] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def of_branch(self, branch: int) -> RunList:
        """The runs of one branch, kept."""
        if branch not in self._by_branch:
            self._by_branch[branch] = RunList(run for run in self if run.branch == branch)
        return self._by_branch[branch]


def runs(
    problem: Problem, queries: Groups, keys: Groups, key_heads: tuple[int, ...]
) -> Iterator[Run]:
    """All runs of a rank's queries over one key part, ordered by branch, offset, segment.

    Args:
        problem: what is computed.
        queries: the rank's query rows.
        keys: the part's key rows.
        key_heads: the key/value heads that the part stores, in storage order.
    """
    for branch in range(problem.num_branches):
        for offset in branch_offsets(problem, branch):
            heads = head_set(problem, branch, offset, key_heads)
            if heads is None:
                continue
            found = keys.segments(branch, offset)
            if not found:
                continue
            for segment, (query, query_x) in queries.segments(branch, offset).items():
                if segment not in found:
                    continue
                key, key_x = found[segment]
                if problem.is_causal and key_x.first > query_x.last:
                    continue
                masked = problem.is_causal and key_x.last > query_x.first
                yield Run(branch, offset, segment, heads, query, query_x, key, key_x, masked)
