"""What must not matter to a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case

from .ring_calls import ARRAYS, Ring, judge, run


def permutes(case: Case, ring: Ring, batch: list[int], groups: list[int]) -> None:
    """Batch entries and heads in another order, offsets with them: results in that order."""
    group = case.num_heads // case.key.shape[2]
    heads = [g * group + i for g in groups for i in range(group)]
    offsets = case.pattern.offsets(case.num_heads)
    table = tuple(tuple(row[h] for h in heads) for row in offsets)
    other = replace(
        case,
        **{
            name: getattr(case, name)[batch][:, :, order]
            for name, order in (
                ("query", heads),
                ("key", groups),
                ("value", groups),
                ("dout", heads),
                ("dlse", heads),
            )
        },
        pattern=Pattern(case.pattern.branches, "table", table),
        key_mask=None if case.key_mask is None else case.key_mask[batch],
    )
    found = run(other, ring)
    back_heads, back_groups = np.argsort(heads), np.argsort(groups)
    unpermuted = {
        name: getattr(found, name)[np.argsort(batch)][
            :, :, back_groups if name in ("dk", "dv") else back_heads
        ]
        for name in ARRAYS
    }
    judge(case, ring, found._replace(**unpermuted))


def prefix_is_independent(case: Case, ring: Ring, cut: int) -> None:
    """Causal: rows before `cut` keep every bit when everything from `cut` on is NaN."""
    future = {name: getattr(case, name).copy() for name in ("query", "key", "value")}
    for rows in future.values():
        rows[:, cut:] = np.nan
    before, after = run(case, ring), run(replace(case, **future), ring)
    for name in ("out", "lse"):
        assert np.array_equal(getattr(before, name)[:, :cut], getattr(after, name)[:, :cut]), name
