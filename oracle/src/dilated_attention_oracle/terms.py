"""How large the terms are that a result is a sum of: what cancellation costs.

An entry of dq may be exactly 0 as the difference of two numbers of size 1 (a query with a single
key); no implementation can be more exact there than its dtype's epsilon times 1. `tolerance` uses
these sizes for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle import torchscale
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.dropout import dropped_counts
from dilated_attention_oracle.gradients import prepare_gradients
from dilated_attention_oracle.inputs import FloatArray, Inputs, IntArray, prepare
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.softmax import exponentials, seen_pairs_dot, sum_seen_rows


class Terms(NamedTuple):
    """Sums of the absolute values of the terms, each in the shape of the result it belongs to.

    Attributes:
        out: ``sum_k P D |v|``.
        lse: ``|lse| + sum_k P |s|``, with ``|s| = |scale| sum_j |q_j k_j|``.
        dq: ``|scale| sum_k |dS| |k|``, with ``|dS| = P (D |dP| + |delta| + |dlse|)``,
            ``|dP| = sum_j |dout_j v_j|`` and ``|delta| = sum_k P D |dP|``.
        dk: ``|scale| sum_p |dS| |q|``.
        dv: ``sum_p P D |dout|``.
    """

    out: FloatArray
    lse: FloatArray
    dq: FloatArray
    dk: FloatArray
    dv: FloatArray


class _Part(NamedTuple):
    """A share of one head's attention: P and P D, for output rows (of given queries) by keys."""

    source: IntArray
    probability: FloatArray
    kept: FloatArray


def term_sizes(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    dout: npt.ArrayLike,
    dlse: npt.ArrayLike | None = None,
    **options: Any,
) -> Terms:
    """The sizes of the terms of out, lse, dq, dk and dv.

    Args:
        query: ``(b, n, H, d)``.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        dout: ``(b, n, H, d)``.
        dlse: ``(b, n, H)`` or None.
        **options: The options of `dilated_attention_oracle.forward`.

    Returns:
        The sizes, all at least 0; lse's is 0 in rows that see nothing.

    Raises:
        ValueError: As `dilated_attention_oracle.forward`.
        TypeError: As `dilated_attention_oracle.forward`.
    """
    inputs = prepare(query, key, value, pattern, **options)
    grad_out, grad_lse = prepare_gradients(inputs, dout, dlse)
    q, k, v, grad_out, grad_lse = (
        np.abs(x) for x in (inputs.query, inputs.key, inputs.value, grad_out, grad_lse)
    )
    sizes = Terms(*(np.zeros(x.shape) for x in (q, grad_lse, q, k, v)))
    for b, h, lse, parts in _heads(inputs):
        g = inputs.key_head(h)
        keys, values, grad = k[b, :, g], v[b, :, g], grad_out[b, :, h]
        row = np.where(np.isneginf(lse), 0.0, grad_lse[b, :, h])
        sizes.lse[b, :, h] = np.where(np.isneginf(lse), 0.0, np.abs(lse))
        dprobability = [seen_pairs_dot(grad, values, part.probability > 0) for part in parts]
        for part, dp in zip(parts, dprobability, strict=True):
            row = row + (part.kept * dp).sum(axis=1)
        for part, dp in zip(parts, dprobability, strict=True):
            seen = part.probability > 0
            queries = np.where((part.source >= 0)[:, None], q[b, part.source, h], 0.0)
            dscores = abs(inputs.scale) * (part.kept * dp + part.probability * row[:, None])
            scores = abs(inputs.scale) * seen_pairs_dot(queries, keys, seen)
            sizes.out[b, :, h] += sum_seen_rows(part.kept, values, seen)
            sizes.lse[b, :, h] += (part.probability * scores).sum(axis=1)
            real = part.source >= 0
            rows = sum_seen_rows(dscores, keys, seen)
            np.add.at(sizes.dq[b, :, h], part.source[real], rows[real])
            sizes.dk[b, :, g] += sum_seen_rows(dscores.T, queries, seen.T)
            sizes.dv[b, :, g] += sum_seen_rows(part.kept.T, grad, seen.T)
    return sizes


def _heads(inputs: Inputs) -> Iterator[tuple[int, int, FloatArray, list[_Part]]]:
    """For each (batch, head): its lse and the parts that its attention is the sum of."""
    if not inputs.pattern.is_exact:
        for b, h in np.ndindex(inputs.batch, inputs.num_heads):
            layouts, results = torchscale.branches(inputs, b, h)
            shares, lse = torchscale.mix(results)
            weights = [a[:, None] * x.probability for a, x in zip(shares, results, strict=True)]
            yield (
                b,
                h,
                lse,
                [_Part(layout.source, x, x) for layout, x in zip(layouts, weights, strict=True)],
            )
        return
    pairs = branch_counts(inputs)
    counts, dropped = pairs.sum(axis=0, dtype=np.int64), dropped_counts(inputs, pairs)
    for b, h in np.ndindex(inputs.batch, inputs.num_heads):
        q, k = inputs.query[b, :, h], inputs.key[b, :, inputs.key_head(h)]
        scores = inputs.scale * seen_pairs_dot(q, k, counts[b, h] > 0)
        shares, lse = exponentials(scores, counts[b, h])
        every = np.arange(inputs.length)
        yield b, h, lse, [_Part(every, counts[b, h] * shares, dropped[b, h] * shares)]
