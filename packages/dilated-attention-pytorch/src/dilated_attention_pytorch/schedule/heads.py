"""Which heads share rows: heads of one offset attend together, key/value heads travel together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .problem import Problem
from .rows import Rows


@dataclass(frozen=True, slots=True)
class HeadSet:
    """Query heads that attend together, and the key/value head of each within one key part."""

    query: Rows
    key: Rows


@dataclass(frozen=True, slots=True)
class KeyClass:
    """Key/value heads whose rows are needed by the same queries, so that they travel as one block.

    `offsets[branch]` are the offsets at which the query heads of each member select rows.
    """

    heads: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def key_classes(problem: Problem) -> tuple[KeyClass, ...]:
    """Partition of the key/value heads by the offsets of their query heads."""
    group = problem.num_heads // problem.num_kv_heads
    members: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for g in range(problem.num_kv_heads):
        used = tuple(
            tuple(sorted({o for o in row[g * group : (g + 1) * group] if o is not None}))
            for row in problem.offsets
        )
        members.setdefault(used, []).append(g)
    return tuple(KeyClass(tuple(heads), used) for used, heads in members.items())


@lru_cache(maxsize=4096)
def head_set(
    problem: Problem, branch: int, offset: int, key_heads: tuple[int, ...]
) -> HeadSet | None:
    """Query heads of this offset that read one of `key_heads`; None where there are none.

    `HeadSet.key` numbers the key/value heads by their place in `key_heads`, which is the order
    in which a key part stores them.
    """
    group = problem.num_heads // problem.num_kv_heads
    place = {g: i for i, g in enumerate(key_heads)}
    row = problem.offsets[branch]
    query = [h for h, o in enumerate(row) if o == offset and h // group in place]
    if not query:
        return None
    key = [place[h // group] for h in query]
    return HeadSet(
        Rows.of(np.asarray(query, dtype=np.int64)), Rows.of(np.asarray(key, dtype=np.int64))
    )


@lru_cache(maxsize=256)
def branch_offsets(problem: Problem, branch: int) -> tuple[int, ...]:
    """The distinct offsets that some head uses in a branch, ascending."""
    return tuple(sorted({o for o in problem.offsets[branch] if o is not None}))
