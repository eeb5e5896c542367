"""The kernels that stream past tiles, with loops: they follow the tables and nothing else."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from dilated_attention_pytorch.kernels.options import Result
from dilated_attention_pytorch.kernels.tiles import Sides, Tiles
from dilated_attention_pytorch.schedule.streams import FREE


class TileBackend:
    """`kernels.tiles.TileBackend` on a CPU, in float64 within.

    Args:
        half: rows of a half tile.
        block: rows that come at a time, in forward; half of them in backward.
    """

    MOST_VIEWS = 12

    def __init__(self, half: int, block: int) -> None:
        self.HALF, self._block = half, block
        self.launches: Counter[str] = Counter()

    def block(self, head_dim: int, *, backward: bool) -> int:
        return max(1, self._block // 2) if backward else self._block

    def readable(self, tensor: Tensor) -> Tensor:
        return tensor

    def statistics(
        self, dout: Tensor, dlse: Tensor | None, result: Result
    ) -> tuple[Tensor, Tensor]:
        delta = (dout.double() * result.out.double()).sum(-1)
        if dlse is not None:
            delta = delta - dlse
        lse = torch.where(result.lse == -torch.inf, torch.inf, result.lse)
        return lse.double(), delta

    def _halves(self, tiles: Tiles, number: int) -> list[Tensor]:
        table = tiles.table
        first0, rows0, first1, rows1, step = table.tiles[table.programs[number, 1], :5].tolist()
        return [first0 + step * torch.arange(rows0), first1 + step * torch.arange(rows1)]

    def _streamed(self, tiles: Tiles, number: int, backward: bool):
        """(view, member, rows, which it holds, halves, weight, begin, end) of each block."""
        table, size = tiles.table, self.block(0, backward=backward)
        bounds = table.tiles[table.programs[number, 1], 5:9].tolist()
        for blocks, weight, view, member, residue, row, rate, _ in table.pieces[
            bounds[0] : bounds[1]
        ].tolist():
            seen = table.views[view]
            for j in range(blocks):
                rows = torch.arange(row + j * size, row + (j + 1) * size)
                who = 3 | FREE
                yield seen, member, residue + rate * rows, rows < seen.rows, who, weight, 0, 2**40
        for first, rate, view, weight, who, low, high, member in table.edges[
            bounds[2] : bounds[3]
        ].tolist():
            seen = table.views[view]
            rows = torch.arange(first // rate, first // rate + size)
            yield seen, member, first % rate + rate * rows, rows < seen.rows, who, weight, low, high

    def _pairs(
        self, tiles: Tiles, number: int, half: int, sides: Sides, *, backward: bool, keys: bool
    ):
        """(x, y, weights, first query head and rows of what streams) of each block of a half."""
        head, rows = int(tiles.table.programs[number, 0]), self._halves(tiles, number)[half]
        first = head * tiles.group if keys else head // tiles.group
        for view, member, at, held, who, weight, low, high in self._streamed(
            tiles, number, backward
        ):
            if not who >> half & 1:
                continue
            of = first + member
            safe = torch.where(held, at, 0)
            x, y = (
                torch.where(held[None, :, None], side[view.source][:, safe, of], 0).double()
                for side in sides
            )
            counts = (low <= at) & (at < high)
            counts = counts[None].expand(len(rows), len(at))
            if tiles.is_causal and not who & FREE:
                counts = counts & (at >= rows[:, None] if keys else at <= rows[:, None])
            yield x, y, weight * counts.double(), of, safe

    def forward_tiles(
        self, tiles: Tiles, query: Tensor, streamed: Sides, out: Tensor, lse: Tensor, scale: float
    ) -> None:
        self.launches["resume" if tiles.resume else "forward"] += 1
        for number, (head, _) in enumerate(tiles.table.programs.tolist()):
            for half, rows in enumerate(self._halves(tiles, number)):
                total = torch.zeros(query.shape[0], len(rows), dtype=torch.float64)
                weighted = torch.zeros(*total.shape, query.shape[3], dtype=torch.float64)
                if tiles.resume:
                    assert out.dtype == torch.float32
                    total = lse[:, rows, head].double().exp()
                    weighted = out[:, rows, head].double() * total[..., None]
                q = query[:, rows, head].double()
                for k, v, weight, _, _ in self._pairs(
                    tiles, number, half, streamed, backward=False, keys=False
                ):
                    p = weight * torch.exp(scale * q @ k.transpose(1, 2))
                    total, weighted = total + p.sum(-1), weighted + p @ v
                lse[:, rows, head] = total.log().to(lse.dtype)
                some = torch.where(total == 0, 1.0, total)
                out[:, rows, head] = (weighted / some[..., None]).to(out.dtype)

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
        self.launches["resume dq" if tiles.resume else "dq"] += 1
        lse, delta = statistics
        for number, (head, _) in enumerate(tiles.table.programs.tolist()):
            for half, rows in enumerate(self._halves(tiles, number)):
                q, do = (x[:, rows, head].double() for x in (query, dout))
                found = torch.zeros_like(q)
                if tiles.resume:
                    assert dquery.dtype == torch.float32
                    found = dquery[:, rows, head].double()
                for k, v, weight, _, _ in self._pairs(
                    tiles, number, half, streamed, backward=True, keys=False
                ):
                    s = scale * q @ k.transpose(1, 2) - lse[:, rows, head, None]
                    ds = (
                        weight
                        * torch.exp(s)
                        * (do @ v.transpose(1, 2) - delta[:, rows, head, None])
                    )
                    found = found + scale * ds @ k
                dquery[:, rows, head] = found.to(dquery.dtype)

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
        self.launches["dk"] += 1
        lse, delta = statistics
        dkey, dvalue = gradients
        alone = key.shape[2] == 1
        for number, (head, _) in enumerate(tiles.table.programs.tolist()):
            for half, rows in enumerate(self._halves(tiles, number)):
                own = 0 if alone else head
                k, v = (x[:, rows, own].double() for x in (key, value))
                dk, dv = torch.zeros_like(k), torch.zeros_like(v)
                sides = tuple((x,) for x in streamed)
                for q, do, weight, of, at in self._pairs(
                    tiles, number, half, sides, backward=True, keys=True
                ):
                    s = scale * k @ q.transpose(1, 2) - lse[:, None, at, of]
                    p = weight * torch.exp(s)
                    dv = dv + p @ do
                    ds = p * (v @ do.transpose(1, 2) - delta[:, None, at, of])
                    dk = dk + scale * ds @ q
                put = rows
                if tiles.stacked:
                    put = (2 * number + half) * self.HALF + torch.arange(len(rows))
                where = 0 if tiles.stacked else own
                dkey[:, put, where], dvalue[:, put, where] = dk.to(dkey.dtype), dv.to(dvalue.dtype)
