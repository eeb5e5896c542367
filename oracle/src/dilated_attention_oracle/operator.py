"""Dilated attention, forward, by definition in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle import torchscale
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.dropout import dropped_counts
from dilated_attention_oracle.inputs import FloatArray, prepare
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.softmax import exponentials, seen_pairs_dot, sum_seen_rows


def forward(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: npt.ArrayLike | None = None,
    cu_seqlens: npt.ArrayLike | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Arrays are ``(b, n, h, d)``, not SDPA's ``(b, h, n, d)``: transpose axes 1 and 2 for those.

    With the count matrix C (see `counts.branch_counts`) and ``s = scale <q[p], k[k]>``::

        lse[p] = log sum_k C[p,k] exp(s[p,k])        -inf where no key is seen
        out[p] = sum_k C[p,k] exp(s[p,k] - lse[p]) v[k]     0 where no key is seen

    Dropout multiplies each of a count's terms by its D (see `philox.keep_mask`); lse has none.
    A row that nobody may see is absent: it never reaches a result, whatever it holds.

    Args:
        query: ``(b, n, H, d)`` floating point.
        key: ``(b, n, H_kv, d)``, H_kv divides H.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        is_causal: Whether only keys at or before the query are seen.
        scale: Softmax scale, ``1 / sqrt(d)`` by default.
        key_mask: ``(b, n)`` bool, True = attend.
        cu_seqlens: ``(docs + 1,)`` boundaries of packed documents, b = 1.
        dropout_p: Probability of dropping an entry.
        seed: Dropout seed, needed where ``dropout_p > 0``.

    Returns:
        ``(out, lse)``: ``(b, n, H, d)`` and ``(b, n, H)``, float64, natural logarithm.

    Raises:
        ValueError: For wrong values or shapes.
        TypeError: For wrong dtypes or kinds.
    """
    inputs = prepare(
        query,
        key,
        value,
        pattern,
        is_causal=is_causal,
        scale=scale,
        key_mask=key_mask,
        cu_seqlens=cu_seqlens,
        dropout_p=dropout_p,
        seed=seed,
    )
    if not pattern.is_exact:
        return torchscale.forward(inputs)
    pairs = branch_counts(inputs)
    counts = pairs.sum(axis=0, dtype=np.int64)
    dropped = dropped_counts(inputs, pairs)
    out = np.zeros(inputs.query.shape)
    lse = np.zeros(inputs.query.shape[:3])
    for b, h in np.ndindex(inputs.batch, inputs.num_heads):
        g = inputs.key_head(h)
        seen = counts[b, h] > 0
        scores = inputs.scale * seen_pairs_dot(inputs.query[b, :, h], inputs.key[b, :, g], seen)
        shares, lse[b, :, h] = exponentials(scores, counts[b, h])
        out[b, :, h] = sum_seen_rows(dropped[b, h] * shares, inputs.value[b, :, g], seen)
    return out, lse
