"""Several messages that are used at once, as one part of the keys for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..layout import Layout
from ..typing import IntArray
from .heads import KeyClass
from .messages import Message, message_bound, piece_bound, piece_capacity
from .problem import Problem


@dataclass(frozen=True, eq=False, slots=True)
class Gathered:
    """Rows of several messages in one order.

    Args:
        positions: of the rows of each class, ascending.
        places: for each message, where its rows and heads stand among all, in the message's order
            (class by class, heads fastest).
        row_places: for each message, where its rows stand among the rows of all classes.
    """

    positions: tuple[IntArray, ...]
    places: tuple[IntArray, ...]
    row_places: tuple[IntArray, ...]


def gather(messages: Sequence[Message], classes: Sequence[KeyClass]) -> Gathered:
    """The rows of all messages, class by class."""
    positions: list[IntArray] = []
    places: list[list[IntArray]] = [[] for _ in messages]
    row_places: list[list[IntArray]] = [[] for _ in messages]
    base = row_base = 0
    for number, key_class in enumerate(classes):
        mine = [message.positions[number] for message in messages]
        order = np.argsort(np.concatenate(mine), kind="stable")
        at = np.empty(len(order), dtype=np.int64)
        at[order] = np.arange(len(order))
        heads = len(key_class.heads)
        done = 0
        for i, some in enumerate(mine):
            rows = at[done : done + len(some)]
            places[i].append((base + rows[:, None] * heads + np.arange(heads)).reshape(-1))
            row_places[i].append(row_base + rows)
            done += len(some)
        positions.append(np.concatenate(mine)[order])
        base += len(order) * heads
        row_base += len(order)
    return Gathered(
        tuple(positions),
        tuple(np.concatenate(x) for x in places),
        tuple(np.concatenate(x) for x in row_places),
    )


def _room(problem: Problem, layout: Layout, buffer_shards: int) -> int:
    """Row-heads of a piece for the rank with fewest rows, of those that hold some; 0 of one."""
    filled = [rank for rank, length in enumerate(layout.lengths) if length]
    if len(filled) < 2:
        return 0
    least = min(filled, key=lambda rank: layout.lengths[rank])
    return piece_capacity(problem, layout, least, buffer_shards)


def steps_together(problem: Problem, layout: Layout, buffer_shards: int) -> int:
    """Steps round the ring whose messages are used at once, where each is one piece.

    As many as surely fit an eighth of the receive buffers: they are there as they came and
    gathered, and in backward so are their gradients. Every rank counts alike.
    """
    most = max(1, message_bound(problem, layout))
    steps = _room(problem, layout, buffer_shards) // 4 // most
    return max(1, min(steps, layout.ring_size - 1))


@lru_cache(maxsize=256)
def rounds_together(problem: Problem, layout: Layout, buffer_shards: int) -> int:
    """Rounds whose messages are used at once.

    Those of `steps_together`: where a message is one piece, the other rounds of its step are empty.
    One where a message may be cut.
    """
    if message_bound(problem, layout) > _room(problem, layout, buffer_shards):
        return 1
    rounds = piece_bound(problem, layout, buffer_shards)
    return steps_together(problem, layout, buffer_shards) * rounds
