"""The dropout-weighted count matrix."""

from __future__ import annotations

import numpy as np

from dilated_attention_oracle.counts import documents
from dilated_attention_oracle.inputs import BoolArray, FloatArray, Inputs
from dilated_attention_oracle.philox import dropout_factor


def dropped_counts(inputs: Inputs, pairs: BoolArray) -> FloatArray:
    """``sum_i C_i[b,h,p,k] D_i[b,h,p,k]``: the count matrix where each count carries its D.

    Args:
        inputs: Checked arguments.
        pairs: ``(branches, b, H, n, n)`` as `branch_counts` gives it.

    Returns:
        ``(b, H, n, n)`` float64; the count matrix itself when nothing is dropped.
    """
    total = np.zeros(pairs.shape[1:])
    if inputs.dropout_p == 0.0:
        return np.sum(pairs, axis=0, out=total)
    _, start = documents(inputs.length, inputs.cu_seqlens)
    for i, (w, r) in enumerate(inputs.pattern.branches):
        batch, head, query, key = np.nonzero(pairs[i])
        rank = (key - start[key]) % w // r
        total[batch, head, query, key] += dropout_factor(
            query, rank, batch * inputs.num_heads + head, i, inputs.dropout_p, inputs.seed
        )
    return total
