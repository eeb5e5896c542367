"""Merging of partial results over parts of the keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import FloatArray, float_array


def merge(
    out_a: npt.ArrayLike, lse_a: npt.ArrayLike, out_b: npt.ArrayLike, lse_b: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Merge two partial results over disjoint parts of a multiset of keys.

    ``lse = logaddexp(lse_a, lse_b)``, ``out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b``.
    The identity is ``(0, -inf)``: a part with lse = -inf has weight 0, whatever its out holds.
    +inf and NaN propagate.

    Args:
        out_a: ``(..., d)``.
        lse_a: ``(...)``, natural logarithm.
        out_b: ``(..., d)``.
        lse_b: ``(...)``.

    Returns:
        ``(out, lse)`` float64.

    Raises:
        ValueError: If the shapes do not belong together.
        TypeError: If an array does not hold floating-point numbers.
    """
    outs = [float_array(x, name) for x, name in ((out_a, "out_a"), (out_b, "out_b"))]
    lses = [float_array(x, name) for x, name in ((lse_a, "lse_a"), (lse_b, "lse_b"))]
    if not outs[0].shape == outs[1].shape or any(x.shape != outs[0].shape[:-1] for x in lses):
        raise ValueError(
            "merge: expected outs of one shape (..., d) and lses of shape (...), got "
            f"{[x.shape for x in outs]} and {[x.shape for x in lses]}"
        )
    # inf - inf, of an infinite lse, is the NaN that has to propagate.
    with np.errstate(invalid="ignore"):
        lse = np.logaddexp(lses[0], lses[1])
        out = np.zeros(outs[0].shape)
        for part_out, part_lse in zip(outs, lses, strict=True):
            present = ~np.isneginf(part_lse)
            weight = np.exp(part_lse[present] - lse[present])
            out[present] += weight[:, None] * part_out[present]
    return out, lse


def merge_partials(
    outs: Sequence[npt.ArrayLike], lses: Sequence[npt.ArrayLike]
) -> tuple[FloatArray, FloatArray]:
    """Merge any positive number of partial results, from the left.

    Args:
        outs: Arrays ``(..., d)``.
        lses: As many arrays ``(...)``.

    Returns:
        ``(out, lse)`` float64.

    Raises:
        ValueError: If there is no part, or the numbers or shapes differ.
        TypeError: If an array does not hold floating-point numbers.
    """
    if len(outs) != len(lses) or not outs:
        raise ValueError(
            f"merge_partials: expected as many outs as lses, at least one, got {len(outs)} and "
            f"{len(lses)}"
        )
    first = float_array(outs[0], "outs[0]")
    out, lse = np.zeros(first.shape), np.full(first.shape[:-1], -np.inf)
    for part_out, part_lse in zip(outs, lses, strict=True):
        out, lse = merge(out, lse, part_out, part_lse)
    return out, lse
