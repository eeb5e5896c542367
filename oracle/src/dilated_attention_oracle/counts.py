"""The count matrix: how often each query sees each key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import BoolArray, Inputs, IntArray


def documents(n: int, cu_seqlens: IntArray) -> tuple[IntArray, IntArray]:
    """For each position, the number of its document and the first position of that document.

    Args:
        n: Global length.
        cu_seqlens: ``(docs + 1,)`` boundaries; equal neighbours are an empty document.

    Returns:
        ``(document, start)``, each ``(n,)`` int64.
    """
    document = np.searchsorted(cu_seqlens, np.arange(n), side="right") - 1
    return document.astype(np.int64), cu_seqlens[document]


def branch_counts(inputs: Inputs) -> BoolArray:
    """Which pairs (query p, key k) each branch sees.

    ``C_i[h,p,k] = [p selected][k selected][same document][same segment of branch i]
    [causal: k <= p][k not masked]``, with p selected by (branch i, head h) iff
    ``((p - start) mod w_i) mod r_i == o_{i,h}``.

    Args:
        inputs: Checked arguments.

    Returns:
        Bool array ``(branches, b, H, n, n)``.
    """
    n, num_heads = inputs.length, inputs.num_heads
    position = np.arange(n)
    document, start = documents(n, inputs.cu_seqlens)
    same_document = document[:, None] == document[None, :]
    allowed = inputs.key_mask[:, None, None, :]
    if inputs.is_causal:
        allowed = allowed & (position[None, :] <= position[:, None])

    branches = inputs.pattern.branches
    pairs = np.zeros((len(branches), num_heads, n, n), dtype=np.bool_)
    for i, ((w, r), offsets) in enumerate(
        zip(branches, inputs.pattern.offsets(num_heads), strict=True)
    ):
        segment = (position - start) // w
        residue = (position - start) % w % r
        together = same_document & (segment[:, None] == segment[None, :])
        for h, offset in enumerate(offsets):
            if offset is not None:
                selected = residue == offset
                pairs[i, h] = together & selected[:, None] & selected[None, :]
    return pairs[:, None] & allowed


def counts(inputs: Inputs) -> npt.NDArray[np.int64]:
    """The count matrix ``C = sum_i C_i`` over the branches.

    Args:
        inputs: Checked arguments.

    Returns:
        Integer array ``(b, H, n, n)``.
    """
    total: npt.NDArray[np.int64] = branch_counts(inputs).sum(axis=0, dtype=np.int64)
    return total
