"""Merge partials and compare with the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dilated_attention_oracle import merge_partials as oracle_merge
from dilated_attention_oracle.precision import EPS, round_to
from dilated_attention_oracle.tolerance import C
from dilated_attention_pytorch import merge_partials

SHAPE = (1, 3, 2, 2)


Part = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def merged(parts: list[Part], dtype: str = "float64") -> tuple[Tensor, Tensor]:
    kind = getattr(torch, dtype)
    lse_kind = torch.float64 if dtype == "float64" else torch.float32
    outs = [torch.tensor(round_to(out, dtype), dtype=kind) for out, _ in parts]
    return merge_partials(outs, [torch.tensor(lse, dtype=lse_kind) for _, lse in parts])


def arrays(found: tuple[Tensor, Tensor]) -> Part:
    out, lse = found
    return out.double().numpy(), lse.double().numpy()


def near(found: Part, wanted: Part, dtype: str) -> None:
    """Semantics 8 with sums of at most four parts: out is at most 1 in size times some 5.

    A weight exp(lse_a - lse) carries the rounding of lse, which is eps |lse|, into out.
    """
    (out, lse), (right_out, right_lse) = found, wanted
    kind = "float64" if dtype == "float64" else "float32"
    lse_error = EPS[kind] * np.abs(right_lse[np.isfinite(right_lse)]).max(initial=1.0)
    for got, right, error in (
        (out, right_out, EPS[dtype] + lse_error),
        (lse, right_lse, EPS[kind]),
    ):
        assert np.array_equal(np.isneginf(got), np.isneginf(right))
        finite = np.isfinite(right)
        size = np.abs(right[finite]).max(initial=1.0)
        difference = np.abs(got[finite] - right[finite]).max(initial=0.0)
        limit = C[dtype if got is out else kind] * error * size
        assert difference <= limit, (difference, limit)


def merge_equals_oracle(parts: list[Part], dtype: str = "float64") -> None:
    rounded = [
        (round_to(out, dtype), lse if dtype == "float64" else round_to(lse, "float32"))
        for out, lse in parts
    ]
    near(arrays(merged(parts, dtype)), oracle_merge(*zip(*rounded, strict=True)), dtype)
