"""Message buffers that a rank keeps from step to step, found by lending them as its steps do.

The lender is the ring's own `Workspace`, with no memory behind its buffers; the order is that of
`ring.forward` and `ring.backward`, or `ring.tiled`, layout `sharded`. Key masks are not counted.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

import torch
from torch import Tensor

from ..comm import Workspace

# Row-heads that come, row-heads that go, whether what comes is gathered, in one group of rounds.
Group: TypeAlias = tuple[int, int, int]

_NOWHERE: Final = torch.device("meta")
# After two or three groups that are alike the same buffers are free again, so a run of six of them
# lends what one of twelve does.
_CYCLE: Final = 6


@lru_cache(maxsize=1024)
def kept_buffers(groups: tuple[Group, ...], row: int, wide_row: int) -> int:
    """Bytes of a rank's message buffers, all of which it has from its second step on.

    Args:
        groups: of the rank's rounds, an empty one at either end.
        row: bytes of a row-head's key and value.
        wide_row: of their gradients.
    """
    workspace = Workspace(keep=True)
    some = [one for run in _alike(groups) for one in run[: _CYCLE + len(run) % _CYCLE]]
    # The second step may find what the first did not.
    for backward in (False, True, False, True):
        _direction(workspace, some, row, wide_row, backward=backward)
    return workspace.nbytes


def _direction(
    workspace: Workspace, groups: list[Group], row: int, wide_row: int, *, backward: bool
) -> None:
    """Lend the buffers of one forward or backward."""

    def lend(rows: int, nbytes: int) -> Tensor:
        return workspace.empty(rows * nbytes, torch.uint8, _NOWHERE)

    came, went, _ = groups[1]
    held = {"ahead": [lend(went, row), lend(came, row)]}
    for (came, went, gathered), (next_came, next_went, _) in pairwise(groups[1:]):
        held["now"] = held.pop("ahead")
        held["ahead"] = [lend(next_went, row), lend(next_came, row)]
        # What was sent goes first, and messages once they are one.
        del held["now"][0]
        if gathered:
            held["now"] = [lend(came, row)]
        if not backward:
            continue
        gradients = [lend(came, wide_row)]
        del held["now"]
        held.pop("home", None)
        if gathered:
            gradients.append(lend(came, wide_row))
        held["home"] = [gradients[-1], lend(went, wide_row)]
        del gradients


def _alike(groups: tuple[Group, ...]) -> list[list[Group]]:
    """Runs of groups whose sizes differ by a sixteenth at most."""
    runs = [[groups[0]]]
    for group in groups[1:]:
        if all(16 * abs(x - y) <= y for x, y in zip(group, runs[-1][0], strict=True)):
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs
