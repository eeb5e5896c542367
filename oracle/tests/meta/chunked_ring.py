"""A ring in NumPy, written like a fast one: chunks, running maxima, receive buffers.

It is right. `planted_faults` breaks one method of it at a time; the kit has to notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dilated_attention_oracle import Result, round_to
from dilated_attention_oracle.conformance import CAPABILITIES
from dilated_attention_oracle.counts import documents
from dilated_attention_oracle.inputs import prepare
from dilated_attention_oracle.philox import dropout_factor
from dilated_attention_oracle.precision import lse_dtype

CHUNK = 4
Array = np.ndarray[Any, Any]


@dataclass
class Visit:
    """One (rank, batch, head): its queries, result so far, and the dropout of each step."""

    rank: int
    b: int
    h: int
    queries: Array
    out: Array
    lse: Array
    factors: list[list[Array]] = field(default_factory=list)


class ChunkedRing:
    """An `Implementation` for the kit."""

    supports: frozenset[str] = frozenset(CAPABILITIES) - {
        "torchscale_switches",
        "replicated",
        "deterministic",
    }

    def __call__(
        self,
        query: Array,
        key: Array,
        value: Array,
        pattern: Any,
        *,
        dtype: str = "float64",
        dout: Array | None = None,
        dlse: Array | None = None,
        deterministic: bool = False,
        ring_size: int = 1,
        layout: str = "sharded",
        order: str | Array = "contiguous",
        shard_lengths: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Result:
        if deterministic or not pattern.is_exact or layout == "replicated":
            raise NotImplementedError("deterministic, torchscale switches, replicated")
        if layout != "sharded":
            raise ValueError(f"unknown layout {layout!r}")
        self.inputs = inputs = prepare(query, key, value, pattern, **options)
        self.shards = split(inputs.length, ring_size, order, shard_lengths)
        self.document_start = documents(inputs.length, inputs.cu_seqlens)[1]
        if dtype not in self.supports:
            raise ValueError(f"unsupported dtype {dtype!r}")
        # Poisoned rows make NaN and infinity on the way; they have to be thrown out, not avoided.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self.compute(dtype, dout, dlse)

    def compute(self, dtype: str, dout: Array | None, dlse: Array | None) -> Result:
        inputs, ranks = self.inputs, range(len(self.shards))
        visits = [
            self.forward(rank, b, h)
            for rank in ranks
            for b, h in np.ndindex(inputs.batch, inputs.num_heads)
        ]
        out, lse = np.zeros(inputs.query.shape), np.zeros(inputs.query.shape[:3])
        for visit in visits:
            out[visit.b, visit.queries, visit.h] = visit.out
            lse[visit.b, visit.queries, visit.h] = visit.lse
        gradients = [np.zeros(x.shape) for x in (inputs.query, inputs.key, inputs.value)]
        if dout is not None:
            grad_lse = np.zeros(lse.shape) if dlse is None else dlse
            for visit in visits:
                self.backward(visit, dout, grad_lse, gradients)
        dq, dk, dv = (round_to(x, dtype) for x in gradients)
        received = np.array([self.rows_received(rank) for rank in ranks])
        return Result(round_to(out, dtype), round_to(lse, lse_dtype(dtype)), dq, dk, dv, received)

    def steps(self) -> int:
        return len(self.shards)

    def source(self, rank: int, step: int) -> int:
        return (rank - step) % len(self.shards)

    def offset(self, i: int, h: int) -> int | None:
        return self.inputs.pattern.offsets(self.inputs.num_heads)[i][h]

    def segments(self, i: int, h: int) -> tuple[Array, Array]:
        """For each token the first position of its segment (-1: not selected), and its rank."""
        (w, r), o = self.inputs.pattern.branches[i], self.offset(i, h)
        place = np.arange(self.inputs.length) - self.document_start
        first = np.where(place % w % r == (-1 if o is None else o), place // w * w, -1)
        return np.where(first >= 0, first + self.document_start, -1), place % w // r

    def block(
        self, visit: Visit, keys: Array, factors: list[Array] | None
    ) -> tuple[Array, Array, list[Array]]:
        """C, C with dropout, and the dropout factors between a visit's queries and some keys."""
        inputs, queries = self.inputs, visit.queries
        allowed = inputs.key_mask[visit.b, keys][None, :]
        if inputs.is_causal:
            allowed = allowed & (keys[None, :] <= queries[:, None])
        counts = np.zeros((len(queries), len(keys)))
        dropped, used = counts.copy(), []
        for i in range(len(inputs.pattern.branches)):
            segment, rank = self.segments(i, visit.h)
            seen = (segment[queries][:, None] == segment[keys]) & (segment[keys] >= 0) & allowed
            factor = np.ones(counts.shape)
            if factors is not None:
                factor = factors[i]
            elif inputs.dropout_p > 0.0:
                head = visit.b * inputs.num_heads + visit.h
                p, t = queries[:, None], rank[keys][None, :]
                factor = dropout_factor(p, t, head, i, inputs.dropout_p, inputs.seed)
            counts += seen
            dropped += seen * factor
            used.append(factor)
        return counts, dropped, used

    def rows(self, visit: Visit, keys: Array) -> tuple[Array, Array, Array]:
        g = self.inputs.key_head(visit.h)
        key, value = self.inputs.key[visit.b, keys, g], self.inputs.value[visit.b, keys, g]
        real = self.inputs.key_mask[visit.b, keys][:, None]
        query = self.inputs.query[visit.b, visit.queries, visit.h]
        return query, np.where(real, key, 0.0), np.where(real, value, 0.0)

    def forward(self, rank: int, b: int, h: int) -> Visit:
        queries = self.shards[rank]
        empty = np.zeros((len(queries), self.inputs.query.shape[3])), np.full(len(queries), -np.inf)
        visit = Visit(rank, b, h, queries, *empty)
        for step in range(self.steps()):
            keys = self.shards[self.source(rank, step)]
            counts, dropped, factors = self.block(visit, keys, None)
            visit.factors.append(factors)
            for first in range(0, len(keys), CHUNK):
                part = slice(first, first + CHUNK)
                self.merge(
                    visit, *self.partial(visit, keys[part], counts[:, part], dropped[:, part])
                )
        self.finish(visit)
        return visit

    def partial(
        self, visit: Visit, keys: Array, counts: Array, dropped: Array
    ) -> tuple[Array, Array]:
        query, key, value = self.rows(visit, keys)
        scores = np.where(counts > 0, self.inputs.scale * products(query, key), -np.inf)
        top = scores.max(axis=1, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(top), 0.0, top)[:, None])
        total = (counts * weights).sum(axis=1)
        lse = np.where(total > 0, top + np.log(total), -np.inf)
        kept = dropped * weights / np.where(total > 0, total, 1.0)[:, None]
        out = np.zeros(query.shape)
        for p, seen in enumerate(counts > 0):
            out[p] = kept[p, seen] @ value[seen]
        return out, lse

    def merge(self, visit: Visit, out: Array, lse: Array) -> None:
        total = np.logaddexp(visit.lse, lse)
        safe = np.where(np.isneginf(total), 0.0, total)
        visit.out = weighted(visit.lse - safe, visit.out) + weighted(lse - safe, out)
        visit.lse = total

    def finish(self, visit: Visit) -> None:
        """After the last step."""

    def received(self, visit: Visit, step: int) -> Array:
        """Positions whose rows are in the receive buffer during a step of backward."""
        return self.shards[self.source(visit.rank, step)]

    def recall(self, visit: Visit, step: int) -> list[Array]:
        """The dropout factors of a step of forward."""
        return visit.factors[step]

    def backward(self, visit: Visit, dout: Array, dlse: Array, gradients: list[Array]) -> None:
        b, h, g = visit.b, visit.h, self.inputs.key_head(visit.h)
        empty = np.isneginf(visit.lse)
        grad = dout[b, visit.queries, h]
        row = np.where(empty, 0.0, dlse[b, visit.queries, h] - (grad * visit.out).sum(axis=1))
        lse = np.where(empty, 0.0, visit.lse)
        for step in range(self.steps()):
            keys = self.shards[self.source(visit.rank, step)]
            counts, dropped, _ = self.block(visit, keys, self.recall(visit, step))
            query, key, value = self.rows(visit, self.received(visit, step))
            scores = np.where(counts > 0, self.inputs.scale * products(query, key), -np.inf)
            shares = np.exp(scores - lse[:, None])
            kept = dropped * shares
            dscores = kept * np.where(counts > 0, products(grad, value), 0.0)
            dscores = self.inputs.scale * (dscores + counts * shares * row[:, None])
            gradients[0][b, visit.queries, h] += dscores @ np.where(np.isfinite(key), key, 0.0)
            gradients[1][b, keys, g] += dscores.T @ query
            gradients[2][b, keys, g] += kept.T @ grad

    def rows_received(self, rank: int) -> int:
        """Rows, counted once per key head, that others own and some query here may see."""
        needed = np.zeros((self.inputs.length, self.inputs.key.shape[2]), dtype=np.bool_)
        queries = self.shards[rank]
        for i in range(len(self.inputs.pattern.branches)):
            for h in range(self.inputs.num_heads):
                segment, _ = self.segments(i, h)
                seen = (segment[queries][:, None] == segment) & (segment >= 0)
                if self.inputs.is_causal:
                    seen &= np.arange(self.inputs.length) <= queries[:, None]
                needed[:, self.inputs.key_head(h)] |= seen.any(axis=0)
        needed[queries] = False
        return int(needed.sum())


def split(n: int, ranks: int, order: str | Array, lengths: tuple[int, ...] | None) -> list[Array]:
    """The positions of each rank's rows."""
    if ranks < 1:
        raise ValueError(f"expected at least one rank, got {ranks}")
    if lengths is None:
        lengths = tuple(n // ranks + (rank < n % ranks) for rank in range(ranks))
    if len(lengths) != ranks or sum(lengths) != n or min(lengths) < 0:
        raise ValueError(f"shard lengths {lengths} do not cut {n} rows for {ranks} ranks")
    if isinstance(order, str) and order not in ("contiguous", "zigzag"):
        raise ValueError(f"unknown order {order!r}")
    positions = np.arange(n)
    if not isinstance(order, str):
        if not np.array_equal(np.sort(order), positions):
            raise ValueError("order is no permutation")
        positions = np.asarray(order)
    elif order == "zigzag":
        pieces = np.array_split(positions, 2 * ranks)
        positions = np.concatenate(
            [pieces[i] for rank in range(ranks) for i in (rank, 2 * ranks - 1 - rank)]
        )
    return np.split(positions, np.cumsum(lengths)[:-1])


def products(left: Array, right: Array) -> Array:
    return left @ right.T


def weighted(exponent: Array, out: Array) -> Array:
    return np.exp(exponent)[:, None] * out
