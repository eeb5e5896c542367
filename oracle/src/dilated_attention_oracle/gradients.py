"""Dilated attention, backward, in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle import torchscale
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.dropout import dropped_counts
from dilated_attention_oracle.inputs import FloatArray, Inputs, float_array, prepare
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.softmax import exponentials, seen_pairs_dot, sum_seen_rows


def backward(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    dout: npt.ArrayLike,
    dlse: npt.ArrayLike | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: npt.ArrayLike | None = None,
    cu_seqlens: npt.ArrayLike | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Arrays are ``(b, n, h, d)``, not SDPA's ``(b, h, n, d)``: transpose axes 1 and 2 for those.

    The gradient of ``sum(dout * out) + sum(dlse * lse)``. With ``P = C exp(s - lse)``,
    ``dP[p,k] = <dout[p], v[k]>`` and ``delta[p] = <dout[p], out[p]>``::

        dS = P * (D dP - delta + dlse)     dv = (P D)^T dout
        dq = scale dS k                    dk = scale dS^T q

    (FlashAttention, arXiv 2205.14135, appendix B.2, with the count matrix, dropout and dlse.)
    With ``detach_mix`` lse is detached, so dlse moves nothing.

    Args:
        query: ``(b, n, H, d)`` floating point.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        dout: ``(b, n, H, d)`` gradient of the loss by out.
        dlse: ``(b, n, H)`` gradient of the loss by lse, 0 if None; unused where lse is -inf.
        is_causal: As in `forward`.
        scale: As in `forward`.
        key_mask: As in `forward`.
        cu_seqlens: As in `forward`.
        dropout_p: As in `forward`.
        seed: As in `forward`.

    Returns:
        ``(dq, dk, dv)`` float64 in the shapes of query, key and value.

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
    grad_out, grad_lse = prepare_gradients(inputs, dout, dlse)
    if not pattern.is_exact:
        return torchscale.backward(inputs, grad_out, grad_lse)
    pairs = branch_counts(inputs)
    counts = pairs.sum(axis=0, dtype=np.int64)
    dropped = dropped_counts(inputs, pairs)
    dq, dk, dv = (np.zeros(x.shape) for x in (inputs.query, inputs.key, inputs.value))
    for b, h in np.ndindex(inputs.batch, inputs.num_heads):
        g = inputs.key_head(h)
        q, k, v = inputs.query[b, :, h], inputs.key[b, :, g], inputs.value[b, :, g]
        grad, seen = grad_out[b, :, h], counts[b, h] > 0
        shares, _ = exponentials(inputs.scale * seen_pairs_dot(q, k, seen), counts[b, h])
        kept = dropped[b, h] * shares
        # delta as sum_k (P D dP) equals <dout, out>, and needs only pairs that are seen.
        weighted = kept * seen_pairs_dot(grad, v, seen)
        delta = weighted.sum(axis=1)
        row = np.where(seen.any(axis=1), grad_lse[b, :, h] - delta, 0.0)
        dscores = np.where(seen, weighted + counts[b, h] * shares * row[:, None], 0.0)
        dq[b, :, h] = inputs.scale * sum_seen_rows(dscores, k, seen)
        dk[b, :, g] += inputs.scale * sum_seen_rows(dscores.T, q, seen.T)
        dv[b, :, g] += sum_seen_rows(kept.T, grad, seen.T)
    return dq, dk, dv


def prepare_gradients(
    inputs: Inputs, dout: npt.ArrayLike, dlse: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """The incoming gradients as float64, dlse 0 if None.

    Raises:
        ValueError: If dout has not the shape of query, or dlse not that of lse.
        TypeError: If either does not hold floating-point numbers.
    """
    grad_out = float_array(dout, "dout")
    if grad_out.shape != inputs.query.shape:
        raise ValueError(
            f"dout: expected the shape of q, {inputs.query.shape}, got {grad_out.shape}"
        )
    shape = inputs.query.shape[:3]
    grad_lse = np.zeros(shape) if dlse is None else float_array(dlse, "dlse")
    if grad_lse.shape != shape:
        raise ValueError(f"dlse: expected (b, n, H) = {shape}, got {grad_lse.shape}")
    return grad_out, grad_lse
