"""Correctness of the shapes that are timed: sampled rows against the definition in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from dilated_attention_oracle.tolerance import Report, check

from .cases import Case


def _seen(case: Case, position: int, head: int, *, keys: bool) -> Tensor:
    """Positions that query `position` sees, with multiplicity; or, `keys`, that see it."""
    found = []
    offsets = case.pattern.offsets(case.heads)
    for i, branch in enumerate(case.pattern.branches):
        w, r, offset = branch.segment_length, branch.dilation_rate, offsets[i][head]
        start = position // w * w
        if offset is None or (position - start) % r != offset:
            continue
        other = torch.arange(start + offset, min(start + w, case.n), r)
        if case.is_causal:
            other = other[other >= position] if keys else other[other <= position]
        found.append(other)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def _query_row(
    case: Case, at: tuple[int, int], tensors: tuple[Tensor, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(out, dq) of one row and head by definition, in `dtype`."""
    position, head = at
    seen = _seen(case, position, head, keys=False).to(tensors[0].device)
    query, dout = (x[0, position, head].to(dtype) for x in (tensors[0], tensors[3]))
    key, value = (x[0, seen, head].to(dtype) for x in tensors[1:3])
    scale = case.head_dim**-0.5
    weights = torch.softmax(key @ query * scale, 0)
    out = weights @ value
    dscores = weights * (value @ dout - out @ dout)
    return out, dscores @ key * scale


def _key_row(
    case: Case,
    at: tuple[int, int],
    tensors: tuple[Tensor, ...],
    lse: Tensor,
    out: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """(dk, dv) of one row and head by definition, given lse and out of the queries."""
    position, head = at
    seen = _seen(case, position, head, keys=True).to(lse.device)
    query, dout, answers = (x[0, seen, head].to(dtype) for x in (tensors[0], tensors[3], out))
    key, value = (x[0, position, head].to(dtype) for x in tensors[1:3])
    scale = case.head_dim**-0.5
    weights = torch.exp((query @ key * scale).to(torch.float64) - lse[0, seen, head].double())
    weights = weights.to(dtype)
    dscores = weights * (dout @ value - (dout * answers).sum(-1))
    return dscores @ query * scale, weights @ dout


def verify(
    case: Case,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    out: Tensor,
    lse: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor] | None,
    rows: int = 24,
) -> dict[str, float]:
    """Largest share of the tolerance's budget that sampled rows use, by array.

    Args:
        case: what was computed.
        tensors: query, key, value, dout.
        out: (1, n, H, d).
        lse: (1, n, H).
        gradients: dq, dk, dv, or None.
        rows: number of (row, head) samples.

    Raises:
        AssertionError: an array is outside the budget.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(case.n, (rows,), generator=generator).tolist()
    places[:2] = [0, case.n - 1]
    samples = [(p, int(torch.randint(case.heads, (), generator=generator))) for p in places]
    actual: dict[str, list[Tensor]] = {}
    exact: dict[str, list[Tensor]] = {}
    plain: dict[str, list[Tensor]] = {}
    for at in samples:
        names = ("out",) if gradients is None else ("out", "dq", "dk", "dv")
        found = (out, *(gradients or ()))
        for target, dtype in ((exact, torch.float64), (plain, case.dtype)):
            values = list(_query_row(case, at, tensors, dtype))
            if gradients is not None:
                values += _key_row(case, at, tensors, lse, out, dtype)
            for name, value in zip(names, values, strict=False):
                target.setdefault(name, []).append(value.double().cpu())
        for name, tensor in zip(names, found, strict=True):
            actual.setdefault(name, []).append(tensor[0, at[0], at[1]].double().cpu())
    kind = str(case.dtype).removeprefix("torch.")
    reports: dict[str, Report] = {
        name: check(
            f"{case.name} {name}",
            *(torch.stack(x[name]).numpy() for x in (actual, exact, plain)),
            kind,
        )
        for name in actual
    }
    return {name: round(report.share, 4) for name, report in reports.items()}
