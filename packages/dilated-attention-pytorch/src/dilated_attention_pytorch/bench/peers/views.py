"""A pattern's rows as strided views: one view for each (branch, offset), segments in its batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ...schedule.heads import branch_offsets, head_set
from ..candidate import AbsentError
from ..cases import Case


@dataclass(frozen=True, slots=True)
class View:
    """Rows that attend to each other: (segments, heads, rows, d), as PyTorch's kernels take them.

    Args:
        segments: how many, each `segment` tokens after the one before.
        segment: w.
        first: global position of the first row.
        rate: distance of rows.
        rows: in a segment.
        head: first head.
        head_step: distance of heads.
        heads: how many.
    """

    segments: int
    segment: int
    first: int
    rate: int
    rows: int
    head: int
    head_step: int
    heads: int

    def of(self, tensor: Tensor) -> Tensor:
        """The view of a contiguous (1, n, H, d); of a (1, n, H), as (segments, heads, rows)."""
        _, token, head, *last = tensor.stride()
        size = (self.segments, self.heads, self.rows, *tensor.shape[3:])
        stride = (self.segment * token, self.head_step * head, self.rate * token, *last)
        start = tensor.storage_offset() + self.first * token + self.head * head
        return tensor.as_strided(size, stride, start)


def views(case: Case) -> Iterator[View]:
    """The full segments of every (branch, offset), and its ragged last segment.

    Raises:
        AbsentError: the heads of an offset do not step evenly.
    """
    problem = case.problem
    every_head = tuple(range(case.heads))
    for branch, (_, rate) in enumerate(
        (b.segment_length, b.dilation_rate) for b in case.pattern.branches
    ):
        w = problem.segment_length(branch)
        full, tail = divmod(case.n, w)
        for offset in branch_offsets(problem, branch):
            found = head_set(problem, branch, offset, every_head)
            assert found is not None
            heads = found.query.slice()
            if heads is None:
                raise AbsentError(f"branch {branch}: the heads of an offset do not step evenly")
            for segments, length, start in ((full, w, 0), (1, tail, full * w)):
                rows = len(range(offset, length, rate))
                if segments and rows:
                    first = start + offset
                    place = (heads.start, heads.step, len(found.query))
                    yield View(segments, w, first, rate, rows, *place)
