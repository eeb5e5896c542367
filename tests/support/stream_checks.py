"""Read a stream table as kernels do, and check what they rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dilated_attention_pytorch.schedule.streams import WHOLE, StreamTable, View

IntArray = npt.NDArray[np.int64]


class Streamed(NamedTuple):
    """A block: rows at low:high count, for the halves whose bit is set in `who`, all in `exact`."""

    view: View
    member: int
    at: IntArray
    who: int
    exact: int
    weight: int
    low: int
    high: int


def _rows(view: View, first: int, rate: int, block: int) -> IntArray:
    """A block's rows that its view holds; what lies outside reads as zeros."""
    residue, row = first % rate, first // rate
    assert view.rate == rate
    assert residue < view.residues
    return residue + rate * np.arange(row, min(row + block, view.rows))


def halves(table: StreamTable, tile: int) -> list[IntArray]:
    """Rows of each half of a tile."""
    first0, rows0, first1, rows1, step = table.tiles[tile, :5].tolist()
    return [first0 + step * np.arange(rows0), first1 + step * np.arange(rows1)]


def streamed(table: StreamTable, tile: int, block: int) -> Iterator[Streamed]:
    """Every block of a tile, in order."""
    begin, end, edge_begin, edge_end, *ends = table.tiles[tile, 5:].tolist()
    for blocks, weight, number, member, residue, row, rate, _ in table.pieces[begin:end].tolist():
        view = table.views[number]
        for j in range(blocks):
            at = _rows(view, residue + (row + j * block) * rate, rate, block)
            assert len(at) == block, "pieces are whole blocks"
            yield Streamed(view, member, at, 3, 3, weight, 0, at[-1] + 1)
    edges = table.edges[edge_begin:edge_end]
    _in_order(edges, [end - edge_begin for end in ends])
    for first, rate, number, weight, who, low, high, member in edges.tolist():
        view = table.views[number]
        at = _rows(view, first, rate, block)
        exact = who // WHOLE
        assert not exact or len(at) == block
        yield Streamed(view, member, at, who, exact, weight, low, high)


def _in_order(edges: npt.NDArray[np.int32], ends: list[int]) -> None:
    """Whether the edges of a tile come as kernels rely on it; `ends` count from the first."""
    *own_ends, end0, end1 = ends
    assert min(end0, end1) == 0, "one half at most meets edges as pieces"
    for half, (own_end, whole_end) in enumerate(zip(own_ends, (end0, end1), strict=True)):
        mine = edges[:, 4] >> half & 1 > 0
        assert (edges[:whole_end, 4] & WHOLE << half > 0).all()
        assert own_end >= whole_end
        assert mine[:own_end].all()
        assert own_end == len(edges) or not mine[own_end]
