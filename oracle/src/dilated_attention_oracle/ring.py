"""The operator on a ring of R ranks, step by step.

Each rank owns some rows, in any order. At step s rank r holds the key/value rows of rank
``(r - s) mod R``, turns them into a partial ``(out, lse)`` for its queries, and merges it. The
backward pass goes round once more with the global lse and ``delta = <dout, out>``, and every step
adds its closed-form share of dq, dk and dv. Nothing here calls the dense operator, and who sees
whom is enumerated from the segments instead of tested pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.gradients import prepare_gradients
from dilated_attention_oracle.inputs import BoolArray, FloatArray, Inputs, IntArray, prepare
from dilated_attention_oracle.merging import merge
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.philox import dropout_factor
from dilated_attention_oracle.softmax import seen_pairs_dot, sum_seen_rows

LAYOUTS = ("sharded", "replicated")


def ring_forward(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    shards: Sequence[npt.ArrayLike],
    *,
    layout: str = "sharded",
    **options: Any,
) -> list[tuple[FloatArray, FloatArray]]:
    """Arrays are ``(b, n, h, d)``, not SDPA's ``(b, h, n, d)``: transpose axes 1 and 2 for those.

    Forward on every rank. The full arrays are cut by ``shards``; a rank then uses its own rows and
    what arrives. With ``replicated`` every rank has all queries, and the ranks' partials over
    their own keys are merged.

    Args:
        query: ``(b, n, H, d)``.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern, with no torchscale switch.
        shards: For each rank the global positions of its rows, in its own order; together they
            hold each of ``0 .. n - 1`` once. Shards may be empty.
        layout: ``"sharded"`` or ``"replicated"``.
        **options: The options of `dilated_attention_oracle.forward`.

    Returns:
        ``(out, lse)`` for each rank: of its own rows in its order, or, replicated, of all rows.

    Raises:
        ValueError: As `forward`; for shards that are no partition, an unknown layout, or a pattern
            with a torchscale switch.
        TypeError: As `forward`.
    """
    ring = _Ring(prepare(query, key, value, pattern, **options), shards, layout)
    return [(visit.out, visit.lse) for visit in ring.forward()]


def ring_backward(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    shards: Sequence[npt.ArrayLike],
    dout: npt.ArrayLike,
    dlse: npt.ArrayLike | None = None,
    *,
    layout: str = "sharded",
    **options: Any,
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Arrays are ``(b, n, h, d)``, not SDPA's ``(b, h, n, d)``: transpose axes 1 and 2 for those.

    Backward on every rank: ``dS = P * (D dP - delta + dlse)`` for each step's keys, with the
    global lse and delta; the steps' shares of dq, dk and dv add up.

    Args:
        query: As in `ring_forward`.
        key: As in `ring_forward`.
        value: As in `ring_forward`.
        pattern: As in `ring_forward`.
        shards: As in `ring_forward`.
        dout: ``(b, n, H, d)``, the same on every rank if replicated (then not summed).
        dlse: ``(b, n, H)`` or None.
        layout: As in `ring_forward`.
        **options: The options of `dilated_attention_oracle.forward`.

    Returns:
        ``(dq, dk, dv)`` for each rank, of its own rows; replicated: dq of all rows, dk and dv of
        its own.

    Raises:
        ValueError: As `ring_forward`.
        TypeError: As `ring_forward`.
    """
    inputs = prepare(query, key, value, pattern, **options)
    return _Ring(inputs, shards, layout).backward(*prepare_gradients(inputs, dout, dlse))


@dataclass
class _Visit:
    """What a rank has for its queries: their positions, rows, and the result so far."""

    positions: IntArray
    query: FloatArray
    out: FloatArray
    lse: FloatArray


@dataclass(frozen=True)
class _Pairs:
    """Of one step and one (batch, head): ``C``, and C with dropout, for queries by keys."""

    counts: npt.NDArray[np.int64]
    dropped: FloatArray

    @property
    def seen(self) -> BoolArray:
        return self.counts > 0


class _Ring:
    def __init__(self, inputs: Inputs, shards: Sequence[npt.ArrayLike], layout: str) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout: expected one of {LAYOUTS}, got {layout!r}")
        if not inputs.pattern.is_exact:
            raise ValueError(
                "ring: the oracle's ring covers the exact operator only, turn the torchscale "
                "switches off"
            )
        self.inputs = inputs
        self.shards = check_shards(shards, inputs.length)
        self.replicated = layout == "replicated"
        self.members = [
            [None if o is None else _members(inputs, w, r, o) for o in offsets]
            for (w, r), offsets in zip(
                inputs.pattern.branches, inputs.pattern.offsets(inputs.num_heads), strict=True
            )
        ]

    def forward(self) -> list[_Visit]:
        """All ranks' steps; replicated partials are merged across ranks at the end."""
        everything = np.arange(self.inputs.length)
        visits = []
        for own in self.shards:
            positions = everything if self.replicated else own
            rows = self.inputs.query[:, positions]
            visits.append(
                _Visit(positions, rows, np.zeros(rows.shape), np.full(rows.shape[:3], -np.inf))
            )
        for rank, source in self.steps():
            visit = visits[rank]
            part = self.partial(visit, self.shards[source])
            visit.out, visit.lse = merge(visit.out, visit.lse, *part)
        if self.replicated:
            out, lse = visits[0].out, visits[0].lse
            for visit in visits[1:]:
                out, lse = merge(out, lse, visit.out, visit.lse)
            for visit in visits:
                visit.out, visit.lse = out, lse
        return visits

    def steps(self) -> Iterator[tuple[int, int]]:
        """Pairs (rank, rank whose key/value rows it holds), in the order of the steps."""
        size = len(self.shards)
        for step in range(1 if self.replicated else size):
            for rank in range(size):
                yield rank, (rank - step) % size

    def partial(self, visit: _Visit, keys: IntArray) -> tuple[FloatArray, FloatArray]:
        """``(out, lse)`` of the visit's queries over one shard of keys."""
        out, lse = np.zeros(visit.query.shape), np.full(visit.query.shape[:3], -np.inf)
        for b, h in np.ndindex(self.inputs.batch, self.inputs.num_heads):
            q, k, v = self.rows(visit, keys, b, h)
            pairs = self.pairs(visit.positions, keys, b, h)
            scores = self.inputs.scale * seen_pairs_dot(q, k, pairs.seen)
            for row in np.flatnonzero(pairs.seen.any(axis=1)):
                seen = pairs.seen[row]
                top = scores[row, seen].max()
                terms = np.exp(scores[row, seen] - top)
                total = pairs.counts[row, seen] @ terms
                lse[b, row, h] = top + np.log(total)
                out[b, row, h] = (pairs.dropped[row, seen] * terms / total) @ v[seen]
        return out, lse

    def backward(
        self, dout: FloatArray, dlse: FloatArray
    ) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """All ranks' steps; dk and dv travel with the rows they belong to."""
        visits = self.forward()
        dq = [np.zeros(visit.query.shape) for visit in visits]
        dk = [np.zeros(self.inputs.key[:, own].shape) for own in self.shards]
        dv = [np.zeros(self.inputs.value[:, own].shape) for own in self.shards]
        for rank, source in self.steps():
            visit, keys = visits[rank], self.shards[source]
            for b, h in np.ndindex(self.inputs.batch, self.inputs.num_heads):
                g = self.inputs.key_head(h)
                q, k, v = self.rows(visit, keys, b, h)
                pairs = self.pairs(visit.positions, keys, b, h)
                lse = visit.lse[b, :, h]
                empty = np.isneginf(lse)
                grad = dout[b, visit.positions, h]
                # Rows that see nothing have no gradient, whatever their dout and dlse hold.
                delta = np.where(empty, 0.0, (grad * visit.out[b, :, h]).sum(axis=1))
                lse_grad = np.where(empty, 0.0, dlse[b, visit.positions, h])
                scores = self.inputs.scale * seen_pairs_dot(q, k, pairs.seen)
                exponent = np.where(
                    pairs.seen, scores - np.where(empty, 0.0, lse)[:, None], -np.inf
                )
                shares = np.exp(exponent)
                kept = pairs.dropped * shares
                dscores = kept * seen_pairs_dot(grad, v, pairs.seen)
                dscores += pairs.counts * shares * (lse_grad - delta)[:, None]
                dscores = np.where(pairs.seen, self.inputs.scale * dscores, 0.0)
                dq[rank][b, :, h] += sum_seen_rows(dscores, k, pairs.seen)
                dk[source][b, :, g] += sum_seen_rows(dscores.T, q, pairs.seen.T)
                dv[source][b, :, g] += sum_seen_rows(kept.T, grad, pairs.seen.T)
        if self.replicated:
            total = np.sum(dq, axis=0)
            dq = [total for _ in dq]
        return list(zip(dq, dk, dv, strict=True))

    def rows(
        self, visit: _Visit, keys: IntArray, b: int, h: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Query, key and value rows of one (batch, head) in this step."""
        g = self.inputs.key_head(h)
        return visit.query[b, :, h], self.inputs.key[b, keys, g], self.inputs.value[b, keys, g]

    def pairs(self, queries: IntArray, keys: IntArray, b: int, h: int) -> _Pairs:
        """Who sees whom between the given positions, branch by branch."""
        inputs = self.inputs
        shape = (len(queries), len(keys))
        counts, dropped = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        allowed = np.broadcast_to(inputs.key_mask[b, keys], shape)
        if inputs.is_causal:
            allowed = allowed & (keys[None, :] <= queries[:, None])
        for i, heads in enumerate(self.members):
            found = heads[h]
            if found is None:
                continue
            label, rank = found
            seen = (label[queries][:, None] == label[keys]) & (label[keys] >= 0) & allowed
            counts += seen
            factor: float | FloatArray = 1.0
            if inputs.dropout_p > 0.0:
                factor = dropout_factor(
                    queries[:, None],
                    rank[keys],
                    b * inputs.num_heads + h,
                    i,
                    inputs.dropout_p,
                    inputs.seed,
                )
            dropped += seen * factor
        return _Pairs(counts, dropped)


def _members(inputs: Inputs, w: int, r: int, offset: int) -> tuple[IntArray, IntArray]:
    """For each position the number of the segment that selects it (else -1), and its rank there.

    Goes through documents and segments one by one and lists the positions ``o, o + r, ...``.
    """
    label = np.full(inputs.length, -1, dtype=np.int64)
    rank = np.zeros(inputs.length, dtype=np.int64)
    number = 0
    for begin, end in zip(inputs.cu_seqlens[:-1], inputs.cu_seqlens[1:], strict=True):
        for first in range(int(begin), int(end), w):
            selected = np.arange(first + offset, min(first + w, int(end)), r)
            label[selected] = number
            rank[selected] = np.arange(len(selected))
            number += 1
    return label, rank


def check_shards(shards: Sequence[npt.ArrayLike], n: int) -> list[IntArray]:
    """The shards as int64 arrays.

    Args:
        shards: For each rank the global positions of its rows.
        n: Global length.

    Returns:
        One ``(rows,)`` int64 array per rank.

    Raises:
        ValueError: If there is no rank, or they do not hold each of ``0 .. n - 1`` once.
    """
    if len(shards) == 0:
        raise ValueError("shards: expected at least one rank, got none")
    arrays = [np.asarray(shard, dtype=np.int64).reshape(-1) for shard in shards]
    if not np.array_equal(np.sort(np.concatenate(arrays)), np.arange(n)):
        raise ValueError(f"shards: expected each of the positions 0 .. {n - 1} exactly once")
    return arrays
