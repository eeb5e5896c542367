"""An ordered set of row numbers: a slice where the rows step evenly, an index array elsewhere."""

from __future__ import annotations

import numpy as np

from ..typing import IntArray


class Rows:
    """Row numbers into some storage, kept as `start, step, count` whenever they step evenly.

    Invariant: `asarray()[i]` is row i; with `array is None` it equals `start + step * i`,
    `step >= 1`, so that a kernel can take a strided view instead of a gather.
    """

    __slots__ = ("array", "count", "start", "step")

    def __init__(self, start: int, step: int, count: int, array: IntArray | None = None) -> None:
        self.start, self.step, self.count, self.array = start, step, count, array

    @classmethod
    def of(cls, values: IntArray) -> Rows:
        """The shortest form of `values`."""
        count = len(values)
        if count == 0:
            return cls(0, 1, 0)
        start = int(values[0])
        if count == 1:
            return cls(start, 1, 1)
        step = int(values[1]) - start
        ends_fit = step >= 1 and int(values[-1]) == start + step * (count - 1)
        if ends_fit and (count == 2 or bool((np.diff(values) == step).all())):
            return cls(start, step, count)
        return cls(start, step, count, np.ascontiguousarray(values))

    def __len__(self) -> int:
        return self.count

    def part(self, begin: int, end: int) -> Rows:
        """Rows `begin:end` of these."""
        end = min(end, self.count)
        if self.array is not None:
            return Rows.of(self.array[begin:end])
        return Rows(self.start + self.step * begin, self.step, max(0, end - begin))

    def asarray(self) -> IntArray:
        """The row numbers as int64."""
        if self.array is not None:
            return self.array
        return self.start + self.step * np.arange(self.count, dtype=np.int64)

    @property
    def first(self) -> int:
        """Row number 0."""
        return self.start

    @property
    def last(self) -> int:
        """The last row number."""
        if self.array is not None:
            return int(self.array[-1])
        return self.start + self.step * (self.count - 1)

    def slice(self) -> slice | None:
        """The equivalent slice, or None where only an index array will do."""
        if self.array is not None:
            return None
        return slice(self.start, self.start + self.step * (self.count - 1) + 1, self.step)

    def __repr__(self) -> str:
        return f"Rows({self.asarray().tolist()})"
