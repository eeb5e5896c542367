"""Who holds which rows: contiguous, zigzag or any index map, shards of any lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from .pattern import as_ints
from .typing import IntArray


def even_lengths(n: int, ring_size: int) -> tuple[int, ...]:
    """Rows per rank, as even as possible: the first `n mod ring_size` ranks hold one more."""
    small, larger = divmod(n, ring_size)
    return tuple(small + (rank < larger) for rank in range(ring_size))


@dataclass(frozen=True, slots=True)
class Layout:
    """A split of `n` rows over `ring_size` ranks.

    Rank j holds `lengths[j]` rows; `positions(j)` gives their global positions in the order in
    which the rank stores them. The positions of all ranks are a permutation of 0..n-1.

    Args:
        lengths: rows per rank, zero allowed.
        order: `contiguous`, `zigzag` (rank j holds the j-th piece from the front and the j-th
            piece from the back, which balances causal work), or `map`.
        index_map: for `map`, little-endian int64 bytes: entry i is the global position of row i
            of the concatenated shards.
    """

    lengths: tuple[int, ...]
    order: str = "contiguous"
    index_map: bytes | None = None

    @property
    def n(self) -> int:
        """Global sequence length."""
        return sum(self.lengths)

    @property
    def ring_size(self) -> int:
        """Number of ranks."""
        return len(self.lengths)

    @property
    def contiguous(self) -> bool:
        """Whether rank j's rows are one run, and the runs ascend with the rank."""
        return self.order == "contiguous"

    def positions(self, rank: int) -> IntArray:
        """Global positions of the rank's rows, in storage order, int64."""
        return _positions(self, rank)


@lru_cache(maxsize=4096)
def _positions(layout: Layout, rank: int) -> IntArray:
    starts = (0, *accumulate(layout.lengths))
    start, stop = starts[rank], starts[rank + 1]
    if layout.order == "contiguous":
        rows = np.arange(start, stop, dtype=np.int64)
    elif layout.order == "zigzag":
        front = [-(-length // 2) for length in layout.lengths]
        back = [length // 2 for length in layout.lengths]
        first = sum(front[:rank])
        second = layout.n - sum(back[: rank + 1])
        rows = np.concatenate(
            [
                np.arange(first, first + front[rank], dtype=np.int64),
                np.arange(second, second + back[rank], dtype=np.int64),
            ]
        )
    else:
        assert layout.index_map is not None
        rows = np.frombuffer(layout.index_map, dtype="<i8")[start:stop].astype(np.int64)
    rows.setflags(write=False)
    return rows


def _is_permutation(rows: IntArray) -> bool:
    if rows.size == 0:
        return True
    if rows.min() < 0 or rows.max() >= rows.size:
        return False
    seen = np.zeros(rows.size, dtype=np.bool_)
    seen[rows] = True
    return bool(seen.all())


def make_layout(
    n: int,
    ring_size: int,
    order: str | Sequence[int] | IntArray = "contiguous",
    shard_lengths: Sequence[int] | None = None,
) -> Layout:
    """Validate and build a `Layout`.

    Args:
        n: global sequence length.
        ring_size: number of ranks R.
        order: `"contiguous"`, `"zigzag"`, or an int64 index map of length n (entry i is the
            global position of row i of the concatenated shards).
        shard_lengths: rows per rank; as even as possible where None.

    Raises:
        ValueError: ring_size < 1, lengths that do not add up to n, or a map that is no
            permutation of 0..n-1.
        TypeError: an index map that does not hold integers.
    """
    if ring_size < 1:
        raise ValueError(f"ring_size must be at least 1, got {ring_size}")
    if shard_lengths is None:
        lengths = even_lengths(n, ring_size)
    else:
        lengths = as_ints("shard_lengths", shard_lengths)
        if len(lengths) != ring_size or any(length < 0 for length in lengths):
            raise ValueError(
                f"shard_lengths needs {ring_size} non-negative entries, got {list(lengths)}"
            )
        if sum(lengths) != n:
            raise ValueError(
                f"shard_lengths must add up to the sequence length {n}, got {list(lengths)} "
                f"(sum {sum(lengths)})"
            )
    if isinstance(order, str):
        if order not in ("contiguous", "zigzag"):
            raise ValueError(
                f"order must be 'contiguous', 'zigzag' or an int64 index map, got {order!r}"
            )
        return Layout(lengths, order)
    index_map = np.asarray(order)
    if index_map.dtype.kind not in "iu" and index_map.size:
        raise TypeError(f"an index map holds int64 positions, got dtype {index_map.dtype}")
    if index_map.shape != (n,) or not _is_permutation(index_map):
        raise ValueError(
            f"an index map must be a permutation of 0..{n - 1} of shape ({n},), got shape "
            f"{index_map.shape}"
        )
    return Layout(lengths, "map", index_map.astype("<i8").tobytes())
