"""From the calls' partial results to out, lse and gradients, in PyTorch's own operators."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..carry import compute_dtype
from .calls import Library
from .plan import Call
from .views import view

Partial = tuple[Call, Tensor, Tensor]
Operands = tuple[Tensor, Tensor, Tensor]


def merge(partials: list[Partial], out: Tensor, lse: Tensor) -> None:
    """Write `lse = logaddexp_i lse_i` and `out = sum_i exp(lse_i - lse) out_i` of a piece.

    Args:
        partials: (call, out_i, lse_i) of every call.
        out: (b, n, H, d); 0 in rows of no call.
        lse: (b, n, H); -inf in rows of no call.
    """
    lse.fill_(-torch.inf)
    for call, _, part in partials:
        rows = view(lse, call)
        torch.logaddexp(rows, part, out=rows)
    total = out if out.dtype == lse.dtype else torch.empty_like(out, dtype=lse.dtype)
    total.zero_()
    for call, values, part in partials:
        weight = torch.sub(part, view(lse, call)).exp_()[..., None]
        view(total, call).addcmul_(values, weight)
    if total is not out:
        out.copy_(total)


def spread(
    planned: list[tuple[Call, Library, Tensor]], dout: Tensor, out: Tensor, lse: Tensor
) -> list[Operands]:
    """(dout, out, lse) of every call, laid out as its library takes them.

    Args:
        planned: (call, library, query view) of every call.
        dout: (b, n, H, d) of a piece.
        out: (b, n, H, d).
        lse: (b, n, H).
    """
    return [(view(dout, call), view(out, call), view(lse, call)) for call, _, _ in planned]


def gather_add(partials: list[tuple[Call, Tensor]], total: Tensor, *, key: bool) -> None:
    """Write a gradient of a piece: the sum of its calls' shares, in float32 or float64.

    Args:
        partials: (call, share) of every call.
        total: (b, n, heads, d); 0 in rows of no call.
        key: the heads are key/value heads.
    """
    dtype = compute_dtype(total.dtype)
    wide = total if total.dtype == dtype else torch.empty_like(total, dtype=dtype)
    wide.zero_()
    for call, share in partials:
        if key and call.groups > 1 and call.offset_step == call.key_step == 0:
            # Groups that read the same rows of the same key/value heads.
            share = share.sum(1 if call.groups_are_heads else 0, keepdim=True, dtype=dtype)
            call = replace(call, groups=1)
        view(wide, call, key=key).add_(share)
    if wide is not total:
        total.copy_(wide)
