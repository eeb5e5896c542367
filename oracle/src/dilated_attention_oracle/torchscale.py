"""The operator as microsoft/torchscale computes it, for weights that were trained with it.

Three switches of `Pattern` ask for it: ``phantom_keys``, ``detach_mix``, ``shift_rows``. In all of
them the branches are mixed by ``alpha_i = exp(lse_i - lse)``, ``lse = logsumexp_i lse_i``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dilated_attention_oracle.inputs import BoolArray, FloatArray, Inputs, IntArray
from dilated_attention_oracle.softmax import seen_pairs_dot, sum_seen_rows


@dataclass(frozen=True)
class Geometry:
    """Which query and keys each output row of one (branch, head) uses.

    Attributes:
        source: ``(n,)`` position of the row's query, -1 for a zero query.
        seen: ``(n, n)`` whether the row sees the real key.
        phantoms: ``(n,)`` number of phantom keys that the row sees (score 0, value 0).
    """

    source: IntArray
    seen: BoolArray
    phantoms: IntArray


@dataclass(frozen=True)
class BranchResult:
    """One branch of one head: out ``(n, d)``, lse ``(n,)``, and P ``(n, n)`` over the real keys."""

    out: FloatArray
    lse: FloatArray
    probability: FloatArray


def geometry(inputs: Inputs, segment_length: int, dilation_rate: int, offset: int) -> Geometry:
    """Lay out one branch as torchscale does.

    With ``w' = min(w, n)`` and W = w' padded up to a multiple of r, output row t belongs to
    segment ``t // S`` and padded place ``a = t mod S``, where S = w', or W with ``shift_rows``. It
    is selected iff ``a mod r == o``. Its query is the one at ``segment * w' + a``, or zero where
    ``a >= w'`` or that is past the end. Of the ``ceil(w'/r)`` dilated places of its segment, those
    past the segment or the sequence are phantoms. Causal compares dilated places, ``a // r``.

    Args:
        inputs: Checked arguments.
        segment_length: w.
        dilation_rate: r.
        offset: o.

    Returns:
        The geometry.
    """
    n, pattern, r = inputs.length, inputs.pattern, dilation_rate
    length = max(min(segment_length, n), 1)
    places = -(-length // r)
    rows = np.arange(n)
    stride = places * r if pattern.shift_rows and length < n else length
    segment, place = rows // stride, rows % stride
    source = np.where(place < length, segment * length + place, n)
    selected = place % r == offset

    key_segment, key_place = rows // length, rows % length
    seen = selected[:, None] & (key_place % r == offset)[None, :]
    seen &= segment[:, None] == key_segment[None, :]
    phantom_place = np.arange(places) * r + offset
    phantom = (phantom_place[None, :] >= length) | (
        segment[:, None] * length + phantom_place[None, :] >= n
    )
    if inputs.is_causal:
        seen &= (key_place // r)[None, :] <= (place // r)[:, None]
        phantom = phantom & (np.arange(places)[None, :] <= (place // r)[:, None])
    phantoms = np.where(selected, phantom.sum(axis=1), 0) if pattern.phantom_keys else 0 * rows
    return Geometry(np.where(source < n, source, -1), seen, phantoms)


def branch(
    inputs: Inputs, layout: Geometry, query: FloatArray, key: FloatArray, value: FloatArray
) -> BranchResult:
    """Attention of one branch of one head, phantom keys and torchscale's sentinel included.

    ``lse_i = log(sum_k exp(s) + phantoms)``. With ``phantom_keys``, a row whose lse_i is exactly 0
    counts as not covered, because torchscale marks uncovered rows by that number.

    Args:
        inputs: Checked arguments.
        layout: The branch's geometry.
        query: ``(n, d)``.
        key: ``(n, d)``.
        value: ``(n, d)``.

    Returns:
        The branch's result; ``(0, -inf)`` in rows that it does not cover.
    """
    rows = np.where((layout.source >= 0)[:, None], query[layout.source], 0.0)
    scores = inputs.scale * seen_pairs_dot(rows, key, layout.seen)
    scores = np.where(layout.seen, scores, -np.inf)
    floor = np.where(layout.phantoms > 0, 0.0, -np.inf)
    peak = np.maximum(scores.max(axis=1, initial=-np.inf), floor)
    shift = np.where(np.isneginf(peak), 0.0, peak)
    with np.errstate(divide="ignore"):
        total = np.exp(scores - shift[:, None]).sum(axis=1) + layout.phantoms * np.exp(-shift)
        lse = shift + np.log(total)
    if inputs.pattern.phantom_keys:
        lse = np.where(lse == 0.0, -np.inf, lse)
    covered = ~np.isneginf(lse)
    probability = np.zeros(scores.shape)
    probability[covered] = np.exp(scores[covered] - lse[covered, None])
    return BranchResult(sum_seen_rows(probability, value, layout.seen), lse, probability)


def forward(inputs: Inputs) -> tuple[FloatArray, FloatArray]:
    """Forward with the pattern's switches.

    Args:
        inputs: Checked arguments.

    Returns:
        ``(out, lse)``: ``(b, n, H, d)`` and ``(b, n, H)``.
    """
    out = np.zeros(inputs.query.shape)
    lse = np.zeros(inputs.query.shape[:3])
    for b, h in np.ndindex(inputs.batch, inputs.num_heads):
        _, parts = branches(inputs, b, h)
        shares, lse[b, :, h] = mix(parts)
        out[b, :, h] = sum(a[:, None] * part.out for a, part in zip(shares, parts, strict=True))
    return out, lse


def backward(
    inputs: Inputs, dout: FloatArray, dlse: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradient with the pattern's switches.

    Branch i contributes ``dS_i = alpha_i P_i * (dout v^T - delta + dlse)``. ``delta`` is
    ``<dout, out>`` of the mix, or, with ``detach_mix``, ``<dout, out_i>`` of the branch alone, and
    then the detached lse passes no dlse on.

    Args:
        inputs: Checked arguments.
        dout: ``(b, n, H, d)``.
        dlse: ``(b, n, H)``.

    Returns:
        ``(dq, dk, dv)``.
    """
    dq, dk, dv = (np.zeros(x.shape) for x in (inputs.query, inputs.key, inputs.value))
    for b, h in np.ndindex(inputs.batch, inputs.num_heads):
        g = inputs.key_head(h)
        q, k, v = inputs.query[b, :, h], inputs.key[b, :, g], inputs.value[b, :, g]
        grad = dout[b, :, h]
        layouts, parts = branches(inputs, b, h)
        shares, lse = mix(parts)
        mixed = sum(a[:, None] * part.out for a, part in zip(shares, parts, strict=True))
        for layout, part, share in zip(layouts, parts, shares, strict=True):
            if inputs.pattern.detach_mix:
                row = -(grad * part.out).sum(axis=1)
            else:
                row = dlse[b, :, h] - (grad * mixed).sum(axis=1)
            row = np.where(np.isneginf(lse), 0.0, row)
            weights = share[:, None] * part.probability
            dprobability = seen_pairs_dot(grad, v, layout.seen)
            dscores = inputs.scale * weights * (dprobability + row[:, None])
            dscores = np.where(layout.seen, dscores, 0.0)
            real = layout.source >= 0
            source, seen = layout.source[real], layout.seen[real]
            np.add.at(dq[b, :, h], source, sum_seen_rows(dscores[real], k, seen))
            dk[b, :, g] += sum_seen_rows(dscores[real].T, q[source], seen.T)
            dv[b, :, g] += sum_seen_rows(weights.T, grad, layout.seen.T)
    return dq, dk, dv


def branches(inputs: Inputs, b: int, h: int) -> tuple[list[Geometry], list[BranchResult]]:
    """Geometry and result of every branch of one head.

    Args:
        inputs: Checked arguments.
        b: Index in the batch.
        h: Query head.

    Returns:
        ``(layouts, parts)``, one of each per branch.
    """
    g = inputs.key_head(h)
    offsets = inputs.pattern.offsets(inputs.num_heads)
    layouts = []
    for (w, r), row in zip(inputs.pattern.branches, offsets, strict=True):
        offset = row[h]
        assert offset is not None
        layouts.append(geometry(inputs, w, r, offset))
    q, k, v = inputs.query[b, :, h], inputs.key[b, :, g], inputs.value[b, :, g]
    return layouts, [branch(inputs, layout, q, k, v) for layout in layouts]


def mix(parts: list[BranchResult]) -> tuple[FloatArray, FloatArray]:
    """The branch weights ``alpha_i = exp(lse_i - lse)`` and ``lse = logsumexp_i lse_i``.

    Args:
        parts: One result per branch.

    Returns:
        ``(alpha, lse)`` of shapes ``(branches, n)`` and ``(n,)``; alpha is 0 where lse is -inf.
    """
    lses = np.stack([part.lse for part in parts])
    lse = np.logaddexp.reduce(lses, axis=0)
    seen = ~np.isneginf(lse)
    shares = np.zeros(lses.shape)
    shares[:, seen] = np.exp(lses[:, seen] - lse[seen])
    return shares, lse
