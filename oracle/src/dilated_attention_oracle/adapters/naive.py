"""The naive one-pass PyTorch implementation that the tolerance formula measures.

Dense scores, one softmax, autograd, everything in one dtype: what anybody would write first. Its
error is what the dtype costs on given inputs. PyTorch is imported on the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.adapters.naive_torchscale import one_pass as torchscale_one_pass
from dilated_attention_oracle.adapters.numpy_adapter import round_dlse
from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.dropout import dropped_counts
from dilated_attention_oracle.inputs import Inputs, prepare
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import lse_dtype, round_to
from dilated_attention_oracle.results import Result

if TYPE_CHECKING:
    import torch


def naive(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    dtype: str = "float64",
    *,
    dout: npt.ArrayLike,
    dlse: npt.ArrayLike | None = None,
    device: str = "cpu",
    **options: Any,
) -> Result:
    """Forward and backward in one pass in the dtype, on inputs rounded to it.

    Scores are dense, ``(b, H, n, n)``; gradients come from autograd. The returned lse is that of a
    run in lse's own dtype (float32, or float64 for float64) on the same rounded inputs, as the
    tolerance needs it.

    Args:
        query: ``(b, n, H, d)``.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        dtype: Name of the dtype T.
        dout: ``(b, n, H, d)``.
        dlse: ``(b, n, H)`` or None.
        device: Where PyTorch computes.
        **options: The options of `dilated_attention_oracle.forward`.

    Returns:
        The result as float64 NumPy arrays.

    Raises:
        ValueError: As `forward`.
        TypeError: As `forward`.
    """
    q, k, v, grad = (round_to(x, dtype) for x in (query, key, value, dout))
    inputs = prepare(q, k, v, pattern, **options)
    grad_lse = round_dlse(dlse, dtype)
    if grad_lse is None:
        grad_lse = np.zeros(inputs.query.shape[:3])
    gradients = (grad, np.asarray(grad_lse, dtype=np.float64))
    result = _one_pass(inputs, gradients, dtype, device)
    if lse_dtype(dtype) == dtype:
        return result
    return result._replace(lse=_one_pass(inputs, gradients, lse_dtype(dtype), device).lse)


def _one_pass(
    inputs: Inputs, gradients: tuple[npt.NDArray[Any], npt.NDArray[Any]], dtype: str, device: str
) -> Result:
    import torch

    kind = getattr(torch, dtype)

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=kind, device=device)

    q, k, v = (tensor(x).requires_grad_() for x in (inputs.query, inputs.key, inputs.value))
    groups = inputs.num_heads // int(inputs.key.shape[2])
    keys, values = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    run = dense_one_pass if inputs.pattern.is_exact else torchscale_one_pass
    out, lse = run(inputs, q, keys, values)
    dout, dlse = (tensor(x) for x in gradients)
    targets = [(out, dout)]
    if lse.requires_grad:
        targets.append((lse, torch.where(torch.isfinite(lse), dlse, torch.zeros_like(lse))))
    results, directions = zip(*targets, strict=True)
    dq, dk, dv = torch.autograd.grad(results, (q, k, v), directions)
    arrays = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, dq, dk, dv))
    return Result._make((*arrays, None, None))


def dense_one_pass(
    inputs: Inputs, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``lse = logsumexp(s + log C)`` and ``out = (exp(s - lse) * sum_i C_i D_i) v``, dense.

    Args:
        inputs: Checked arguments; its arrays are not used.
        query: ``(b, n, H, d)``, in the dtype to compute in.
        key: ``(b, n, H, d)``, repeated to the query's heads.
        value: ``(b, n, H, d)``, likewise.

    Returns:
        ``(out, lse)``: ``(b, n, H, d)`` and ``(b, n, H)``, differentiable; rows that see nothing
        have lse -inf and no gradient.
    """
    import torch

    pairs = branch_counts(inputs)
    counts, dropped = (
        torch.tensor(x, dtype=query.dtype, device=query.device)
        for x in (pairs.sum(axis=0), dropped_counts(inputs, pairs))
    )
    scores = torch.einsum("bphd,bkhd->bhpk", query, key) * inputs.scale
    scores = (scores + counts.log()).masked_fill(counts == 0, -torch.inf)
    sees = (counts > 0).any(dim=-1)
    # A row of -inf alone has a NaN gradient in logsumexp; such rows are set to 0 before it.
    lse = scores.masked_fill(~sees[..., None], 0.0).logsumexp(dim=-1)
    probability = (scores - lse[..., None]).exp().masked_fill(~sees[..., None], 0.0)
    kept = probability * torch.where(counts > 0, dropped / counts, torch.zeros_like(counts))
    out = torch.einsum("bhpk,bkhd->bphd", kept, value)
    return out, lse.masked_fill(~sees, -torch.inf).transpose(1, 2)
