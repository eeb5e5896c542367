"""One softmax over a multiset of keys, and sums that only touch what is seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import BoolArray, FloatArray


def exponentials(
    scores: FloatArray, counts: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """``lse[p] = log sum_k C[p,k] exp(s[p,k])`` and ``E[p,k] = exp(s[p,k] - lse[p])``.

    A pair with ``C = 0`` is absent: its score may be anything, and its E is 0.

    Args:
        scores: ``(p, k)``.
        counts: ``(p, k)`` non-negative integers.

    Returns:
        ``(E, lse)`` of shapes ``(p, k)`` and ``(p,)``; lse is -inf where a row sees no key.
    """
    seen = counts > 0
    present = np.where(seen, scores, -np.inf)
    peak = present.max(axis=1, initial=-np.inf)
    shift = np.where(np.isneginf(peak), 0.0, peak)
    # log(0) is the -inf of a row that sees nothing; inf - inf is the NaN of an infinite score.
    with np.errstate(divide="ignore", invalid="ignore"):
        lse = shift + np.log((counts * np.exp(present - shift[:, None])).sum(axis=1))
        shares = np.exp(present - lse[:, None])
    return np.where(seen & ~np.isneginf(lse)[:, None], shares, 0.0), lse


def seen_pairs_dot(left: FloatArray, right: FloatArray, seen: BoolArray) -> FloatArray:
    """``<left[p], right[k]>`` where the pair is seen, 0 elsewhere, whatever the rows hold.

    Args:
        left: ``(p, d)``.
        right: ``(k, d)``.
        seen: ``(p, k)``.

    Returns:
        ``(p, k)``.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(seen, left @ right.T, 0.0)


def sum_seen_rows(weights: FloatArray, rows: FloatArray, seen: BoolArray) -> FloatArray:
    """``sum_k weights[p,k] rows[k]`` over the seen pairs, so that no 0 * NaN is ever formed.

    Args:
        weights: ``(p, k)``, 0 where the pair is not seen.
        rows: ``(k, d)``.
        seen: ``(p, k)``.

    Returns:
        ``(p, d)``.
    """
    if np.isfinite(rows).all():
        return weights @ rows
    total = np.zeros((weights.shape[0], rows.shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):
        for p, keys in enumerate(seen):
            total[p] = weights[p, keys] @ rows[keys]
    return total
