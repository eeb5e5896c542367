"""A backend that computes nothing and writes down which pairs it was asked to compute.

It reads positions and heads out of the tensors that it is given (`encoded`), so a row that
travelled to the wrong place or never arrived shows as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.kernels.carry import Carry, take
from dilated_attention_pytorch.kernels.options import (
    KernelOptions,
    KeyGradient,
    KeyPart,
    QuerySide,
    Result,
)
from dilated_attention_pytorch.schedule import AlignedTile, Run, RunList

from .definition import Pair


def encoded(n: int, heads: int) -> Tensor:
    """(1, n, heads, 2): each row holds its position and its head."""
    rows = torch.empty(1, n, heads, 2, dtype=torch.float64)
    rows[..., 0] = torch.arange(n)[None, :, None]
    rows[..., 1] = torch.arange(heads)
    return rows


class CountingBackend:
    """Counts pairs; `BLOCK` is small so that tiles are cut."""

    BLOCK = 3

    def __init__(self) -> None:
        self.forward_pairs: Counter[Pair] = Counter()
        self.backward_pairs: Counter[Pair] = Counter()

    def forward(
        self,
        query: Tensor,
        parts: Sequence[KeyPart],
        runs: tuple[RunList, ...],
        carry: Carry,
        options: KernelOptions,
    ) -> None:
        """Count the pairs of the runs' tiles."""
        del carry
        for part, found in zip(parts, runs, strict=True):
            for run in found:
                for tile in run.tiles(self.BLOCK):
                    _count(self.forward_pairs, query, part, tile, options)

    def forward_aligned(
        self,
        query: Tensor,
        part: KeyPart,
        tiles: Iterable[AlignedTile],
        carry: Carry,
        options: KernelOptions,
    ) -> None:
        """Count the pairs of the tiles."""
        del carry
        for tile in tiles:
            assert len(tile.key_place) == len(tile.run.key)
            assert max(tile.query_place.last, tile.key_place.last) < tile.rows <= self.BLOCK
            _count(self.forward_pairs, query, part, tile.run, options)

    def backward(
        self,
        side: QuerySide,
        parts: Sequence[KeyPart],
        runs: tuple[RunList, ...],
        gradients: Sequence[KeyGradient],
        options: KernelOptions,
    ) -> None:
        """Count the pairs of the runs' tiles."""
        for part, found, (dkey, dvalue) in zip(parts, runs, gradients, strict=True):
            assert dkey.shape == part.key.shape == dvalue.shape
            for run in found:
                for tile in run.tiles(self.BLOCK):
                    _count(self.backward_pairs, side.query, part, tile, options)

    def finish(self, carry: Carry, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As the reference."""
        return eager.finish(carry, dtype)

    def delta(self, dout: Tensor, result: Result, *, detached: bool) -> Tensor:
        """As the reference."""
        return eager.delta(dout, result, detached=detached)


def _count(
    pairs: Counter[Pair], query: Tensor, part: KeyPart, run: Run, options: KernelOptions
) -> None:
    rate = options.problem.pattern.branches[run.branch].dilation_rate
    group = options.problem.num_heads // options.problem.num_kv_heads
    queries = take(query, run.query, run.heads.query)[0].tolist()
    keys = take(part.key, run.key, run.heads.key)[0].tolist()
    values = take(part.value, run.key, run.heads.key)[0].tolist()
    assert values == keys, "key and value rows travel together"
    for query_row, query_x in zip(queries, run.query_x.asarray().tolist(), strict=True):
        for key_row, key_x in zip(keys, run.key_x.asarray().tolist(), strict=True):
            if run.masked and key_x > query_x:
                continue
            for (p, head), (k, kv_head) in zip(query_row, key_row, strict=True):
                assert p == run.segment + query_x * rate + run.offset
                assert k == run.segment + key_x * rate + run.offset
                assert kv_head == head // group
                pairs[run.branch, int(head), int(p), int(k)] += 1
