"""Merging partial results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .validation import DTYPES


def merge_partials(
    outs: Sequence[Tensor] | Tensor, lses: Sequence[Tensor] | Tensor
) -> tuple[Tensor, Tensor]:
    """Merge attention of disjoint parts of the keys into attention of all; differentiable.

        lse = log sum_i exp(lse_i);  out = sum_i exp(lse_i - lse) out_i

    computed in float32 (float64 for float64 input). A part with lse = -inf has weight 0 whatever
    its out holds; where every part is empty, out is 0 and lse -inf. +inf and NaN propagate.

    Args:
        outs: partial outs, each (b, n, h, d); a sequence or a stacked tensor (parts first).
        lses: their natural-log lse, each (b, n, h).

    Returns:
        out in outs' dtype; lse in float32, or float64 for float64 outs.

    Raises:
        ValueError: no parts, as many outs as lses not given, or shapes that do not match.
        TypeError: a dtype that is not a float one.
    """
    parts, weights = list(outs), list(lses)
    if not parts or len(parts) != len(weights):
        raise ValueError(
            f"outs and lses must hold one entry for each part, at least one; got {len(parts)} and "
            f"{len(weights)}"
        )
    for out, lse in zip(parts, weights, strict=True):
        if not isinstance(out, Tensor) or not isinstance(lse, Tensor):
            raise TypeError("outs and lses must hold tensors")
        if out.dtype not in DTYPES or not lse.is_floating_point() or out.dtype != parts[0].dtype:
            raise TypeError(f"outs must share a float dtype, got {out.dtype}; lse {lse.dtype}")
        if out.shape != parts[0].shape or lse.shape != out.shape[:-1]:
            raise ValueError(
                f"every out must have one shape and its lse that shape without the last dimension, "
                f"got {tuple(out.shape)} and {tuple(lse.shape)}"
            )
    dtype = torch.float64 if parts[0].dtype == torch.float64 else torch.float32
    lse = torch.stack([x.to(dtype) for x in weights])
    out = torch.stack([x.to(dtype) for x in parts])
    empty = lse == -torch.inf
    largest = lse.detach().amax(0)
    pivot = torch.where(torch.isinf(largest), 0.0, largest)
    # Double where: exp and log see harmless numbers where the result is not used.
    weight = torch.where(empty, 0.0, torch.exp(torch.where(empty, 0.0, lse) - pivot))
    total = weight.sum(0)
    nothing = empty.all(0)
    safe = torch.where(nothing, 1.0, total)
    merged_lse = torch.where(nothing, -torch.inf, torch.log(safe) + pivot)
    share = torch.where(empty, 0.0, weight / safe)
    merged = (share[..., None] * torch.where(empty[..., None], 0.0, out)).sum(0)
    return merged.to(parts[0].dtype), merged_lse
