"""Single rows of a case by the operator's definition, in any precision.

Uses the pattern alone: nothing here comes from the schedules or kernels that are being checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..typing import IntArray
from .cases import Case
from .inputs import Inputs

# Queries whose whole rows of scores are held at once.
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class QueryRows:
    """Rows of one head: out (rows, d), lse (rows,), delta (rows,), dq (rows, d)."""

    out: Tensor
    lse: Tensor
    delta: Tensor
    dquery: Tensor


def _met(case: Case, head: int, positions: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """(places in `positions`, keys) of each branch and segment: those queries see those keys."""
    for branch, offsets in zip(
        case.pattern.branches, case.pattern.offsets(case.heads), strict=True
    ):
        w, r, offset = branch.segment_length, branch.dilation_rate, offsets[head]
        if offset is None:
            continue
        selected = np.flatnonzero(positions % w % r == offset)
        for segment in np.unique(positions[selected] // w):
            start = int(segment) * w
            places = selected[positions[selected] // w == segment]
            yield places, np.arange(start + offset, min(start + w, case.n), r, dtype=np.int64)


def query_rows(
    case: Case, inputs: Inputs, head: int, positions: IntArray, dtype: torch.dtype
) -> QueryRows:
    """Rows of out, lse and dq of one head, computed in one pass in `dtype`.

    lse is summed in float32 at least, as the contract's naive run has it.
    """
    parts = [
        _query_chunk(case, inputs, head, positions[i : i + _CHUNK], dtype)
        for i in range(0, max(1, len(positions)), _CHUNK)
    ]
    return QueryRows(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("out", "lse", "delta", "dquery")
        )
    )


def _query_chunk(
    case: Case, inputs: Inputs, head: int, positions: IntArray, dtype: torch.dtype
) -> QueryRows:
    device = inputs.query.device
    at = torch.from_numpy(positions).to(device)
    query, dout = (x[0, at, head].to(dtype) for x in (inputs.query, inputs.dout))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scale = case.head_dim**-0.5
    met = []
    lse = torch.full((len(at),), -torch.inf, dtype=wide, device=device)
    for places, keys in _met(case, head, positions):
        rows, columns = (torch.from_numpy(x).to(device) for x in (places, keys))
        key, value = (x[0, columns, head].to(dtype) for x in (inputs.key, inputs.value))
        scores = query[rows] @ key.T * scale
        if case.is_causal:
            scores = scores.masked_fill(columns > at[rows, None], -torch.inf)
        lse[rows] = torch.logaddexp(lse[rows], scores.to(wide).logsumexp(1))
        met.append((rows, key, value, scores))
    out = torch.zeros_like(query)
    weights = []
    for rows, _, value, scores in met:
        # A row that sees no key has lse = -inf and scores = -inf: its weights are 0.
        pivot = torch.where(lse == -torch.inf, 0.0, lse)[rows, None]
        weights.append(torch.exp(scores.to(wide) - pivot).to(dtype))
        out[rows] += weights[-1] @ value
    delta = (dout * out).sum(1)
    dquery = torch.zeros_like(query)
    for (rows, key, value, _), weight in zip(met, weights, strict=True):
        dscores = weight * (dout[rows] @ value.T - delta[rows, None])
        dquery[rows] += dscores @ key * scale
    return QueryRows(out, lse, delta, dquery)


def key_row(
    case: Case, inputs: Inputs, head: int, position: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(dk, dv), each (d,), of one key: `dv = sum_p P dout`, `dk = sum_p dS q scale`.

    The softmax of every query that sees the key is computed here as well.
    """
    seen = [np.zeros(0, dtype=np.int64)]
    seen += [
        keys[keys >= position] if case.is_causal else keys
        for _, keys in _met(case, head, np.array([position], dtype=np.int64))
    ]
    # The queries that see a key in a branch are the rows that share its segment and offset.
    positions, counts = np.unique(np.concatenate(seen), return_counts=True)
    rows = query_rows(case, inputs, head, positions, dtype)
    device = inputs.query.device
    at, times = (torch.from_numpy(x).to(device) for x in (positions, counts))
    query, dout = (x[0, at, head].to(dtype) for x in (inputs.query, inputs.dout))
    key, value = (x[0, position, head].to(dtype) for x in (inputs.key, inputs.value))
    scale = case.head_dim**-0.5
    scores = (query @ key * scale).to(rows.lse.dtype)
    weights = (times * torch.exp(scores - rows.lse)).to(dtype)
    dscores = weights * (dout @ value - rows.delta)
    return dscores @ query * scale, weights @ dout
