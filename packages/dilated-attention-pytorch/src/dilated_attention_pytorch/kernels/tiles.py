"""Kernels that stream one side past tiles of the other, a rank's own rows and received ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..schedule import Problem
from ..schedule.streams import StreamTable
from .options import Result

# Of each side, keys and values or queries and dout, the sequence and what was received beside it.
Sides = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Tiles:
    """What a launch works on.

    Args:
        table: the tiles and what streams past them.
        num_heads: query heads H.
        group: query heads of a key/value head.
        is_causal: causality hides some of what streams.
        resume: results are added to what is in their place, in float32.
        stacked: gradients of keys go one program after the other.
    """

    table: StreamTable
    num_heads: int
    group: int
    is_causal: bool
    resume: bool = False
    stacked: bool = False

    @classmethod
    def of(
        cls,
        problem: Problem,
        table: StreamTable,
        *,
        masked: bool = True,
        resume: bool = False,
        stacked: bool = False,
    ) -> Tiles:
        """Of a problem's heads; `masked` where its causality may hide something."""
        group = problem.num_heads // problem.num_kv_heads
        causal = problem.is_causal and masked
        return cls(table, problem.num_heads, group, causal, resume, stacked)


class TileBackend(Protocol):
    """A module with such kernels. `HALF` is the rows of a half tile."""

    HALF: int
    MOST_VIEWS: int

    def block(self, head_dim: int, *, backward: bool) -> int:
        """Rows of the streamed side that come at a time."""
        ...

    def readable(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy that the kernels can stream."""
        ...

    def statistics(
        self, dout: Tensor, dlse: Tensor | None, result: Result
    ) -> tuple[Tensor, Tensor]:
        """What the gradients need of the softmax of each query row."""
        ...

    def forward_tiles(
        self, tiles: Tiles, query: Tensor, streamed: Sides, out: Tensor, lse: Tensor, scale: float
    ) -> None:
        """Write out and lse of the rows of the tiles, or with `resume` add keys to them.

        Args:
            tiles: of queries.
            query: (b, n, H, d).
            streamed: (keys, values): of the sequence (b, n, H_kv, d), and received (b, rows, 1, d).
            out: (b, n, H, d), contiguous; in float32 with `resume`.
            lse: (b, n, H) float32, contiguous.
            scale: softmax scale.
        """
        ...

    def dquery_tiles(
        self,
        tiles: Tiles,
        query: Tensor,
        streamed: Sides,
        dout: Tensor,
        statistics: tuple[Tensor, Tensor],
        dquery: Tensor,
        scale: float,
    ) -> None:
        """Write dq of the rows of the tiles, or with `resume` add the share of keys.

        Args:
            tiles: of queries.
            query: (b, n, H, d).
            streamed: as in `forward_tiles`.
            dout: (b, n, H, d).
            statistics: of all keys.
            dquery: (b, n, H, d), contiguous; in float32 with `resume`.
            scale: softmax scale.
        """
        ...

    def dkey_tiles(
        self,
        tiles: Tiles,
        key: Tensor,
        value: Tensor,
        streamed: tuple[Tensor, Tensor],
        statistics: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        scale: float,
    ) -> None:
        """Write dk and dv of the rows of the tiles.

        Args:
            tiles: of keys.
            key: (b, n, H_kv, d), or received ones (b, rows, 1, d).
            value: like key.
            streamed: query and dout, (b, n, H, d).
            statistics: of all keys.
            gradients: (dk, dv), like key, or with `stacked` (b, 2 HALF programs, 1, d), contiguous.
            scale: softmax scale.
        """
        ...
