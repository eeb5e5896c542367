"""Rings whose ranks' own rows are sequences of their own, for kernels that compute whole ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case

from .ring_calls import Ring

# name: (rows per rank, (w, r) of the branches, offset rule, H, H_kv, options)
ALONE: dict[str, tuple[tuple[int, ...], tuple[tuple[int, int], ...], str, int, int, dict[str, Any]]]
ALONE = {
    "nothing travels": ((16, 16), ((8, 1), (16, 2)), "longnet", 4, 2, {}),
    "nothing travels, causal": ((16, 16, 8), ((8, 1),), "longnet", 2, 2, {"is_causal": True}),
    "ladder": ((16, 16), ((8, 1), (32, 2)), "longnet", 4, 4, {}),
    "ladder, causal": ((16, 16), ((8, 1), (32, 2)), "longnet", 4, 2, {"is_causal": True}),
    "dense": ((10, 10, 10), ((30, 1),), "longnet", 2, 1, {"is_causal": True, "scale": -0.4}),
    "ends early": ((16, 16, 5), ((16, 1), (37, 4)), "torchscale", 4, 4, {"is_causal": True}),
    "zigzag": ((16, 16), ((4, 1), (32, 2)), "longnet", 2, 2, {"order": "zigzag"}),
    "zigzag, causal": (
        (16, 16, 16),
        ((8, 1), (48, 4)),
        *("longnet", 4, 2),
        {"order": "zigzag", "is_causal": True},
    ),
    "zigzag, apart": (
        (16, 16),
        ((16, 2), (8, 1)),
        *("longnet", 2, 2),
        {"order": "zigzag", "is_causal": True},
    ),
    "heads apart": ((12, 12), ((6, 1), (24, 3)), "head_groups", 4, 2, {}),
    "documents": ((16, 16), ((8, 2),), "longnet", 2, 2, {"cu_seqlens": np.array([0, 16, 21, 32])}),
}


def case_of(
    pattern: Pattern,
    n: int,
    batch: int,
    heads: int,
    kv_heads: int,
    dtype: str,
    options: dict[str, Any],
) -> Case:
    """A case with random inputs of head dimension 8."""
    rng = np.random.default_rng(n + heads)
    q, k, v, dout = (
        rng.standard_normal((batch, n, h, 8)) for h in (heads, kv_heads, kv_heads, heads)
    )
    dlse = rng.standard_normal((batch, n, heads))
    return Case(q, k, v, dout, dlse, pattern, dtype, **options)


def own_case(name: str, dtype: str) -> tuple[Case, Ring]:
    """A case and its ring, over 2 batch entries where documents allow."""
    lengths, branches, rule, heads, kv_heads, given = ALONE[name]
    options = {key: value for key, value in given.items() if key != "order"}
    n, batch = sum(lengths), 1 if "cu_seqlens" in options else 2
    case = case_of(Pattern(branches, rule), n, batch, heads, kv_heads, dtype, options)
    return case, Ring(lengths, order=given.get("order", "contiguous"))
