"""How well the rows that the same branches cover fill the halves of tiles of `halves`."""

from __future__ import annotations

import math
from functools import lru_cache

from .classes import Offsets, row_classes
from .problem import Problem

# A longer period has too many classes to look at, and to make tables of.
_LONGEST_PERIOD = 1 << 14


@lru_cache(maxsize=256)
def room_for_a_row(problem: Problem, half: int) -> float:
    """Rows that halves of `half` rows have room for, for each that they hold, weighted by work.

    1 where all halves are full. A half's rows lie in one segment of every branch that covers them,
    and the rows of a class may lie as far apart as the least common multiple of the rates. Infinite
    where that is beyond 16,384. Documents, ends of segments and key/value heads that several query
    heads share are not looked at.
    """
    branches = problem.pattern.branches
    rates = tuple(branch.dilation_rate for branch in branches)
    period = math.lcm(*rates)
    if period > _LONGEST_PERIOD:
        return math.inf
    room = held = 0.0
    for offsets in set(zip(*problem.offsets, strict=True)):
        found = _of_head(problem, offsets, rates, half)
        room, held = room + found[0], held + found[1]
    return room / held if held else 1.0


def _of_head(
    problem: Problem, offsets: Offsets, rates: tuple[int, ...], half: int
) -> tuple[float, float]:
    """(room, rows) of a head's halves, each row counted as often as it meets a key."""
    room = held = 0.0
    for _, step, used in row_classes(rates, (0,) * len(rates), (offsets,)):
        lengths = [problem.segment_length(i) for i, covers in enumerate(used) if covers]
        if not lengths:
            continue
        met = sum(problem.segment_length(i) / rates[i] for i, covers in enumerate(used) if covers)
        rows = min(half, max(1, min(lengths) // step))
        held += met / step
        room += met / step * half / rows
    return room, held
