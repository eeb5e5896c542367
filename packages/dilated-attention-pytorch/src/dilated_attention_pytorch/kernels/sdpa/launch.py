"""The backend: library calls on the pieces of a sequence, and what joins their results."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from ..carry import compute_dtype
from ..options import KernelOptions, Result
from . import merge as torch_merge
from .calls import Gradients, Library, library
from .plan import Call, Piece, calls, pieces
from .views import rows_of, view

Planned = list[tuple[Call, Library, Tensor]]


@lru_cache(maxsize=8)
def _joining(kind: str) -> ModuleType:
    """What joins partial results: Triton kernels on CUDA, PyTorch's operators elsewhere."""
    if kind != "cuda":
        return torch_merge
    # Imported late: only here is triton needed.
    from . import gpu_merge

    return gpu_merge


def _readable(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where the libraries cannot read its strides."""
    if tensor.stride(-1) != 1:
        return tensor.contiguous()
    if tensor.device.type == "cpu":
        return tensor
    # CUDA kernels read 16 bytes at a time, and no two rows may share memory.
    aligned = tensor.data_ptr() % 16 == 0 and all(s % 8 == 0 and s for s in tensor.stride()[:-1])
    return tensor if aligned else tensor.contiguous()


def _pieces(options: KernelOptions, *tensors: Tensor) -> tuple[Piece, ...]:
    b, n, heads, d = tensors[0].shape
    folds = all(x.stride(0) == n * x.stride(1) for x in tensors)
    return pieces(options.problem, b, heads * d, tensors[0].device.type, folds=folds)


def _exact(tensor: Tensor) -> Tensor:
    """What the library gets of a piece: on a CPU 16 bits as float32.

    The CPU's kernel takes 16 bits, but approximates exp for them: its lse is wrong by several times
    what float32 allows.
    """
    return tensor.float() if tensor.device.type == "cpu" and tensor.itemsize == 2 else tensor


def _signed(options: KernelOptions, query: Tensor) -> tuple[KernelOptions, Tensor, float]:
    """(options, query, factor of query): a scale that is not positive goes into the query.

    The libraries hide a key by a score of -inf before they scale it, so that of a negative scale
    it would become +inf, and of 0 NaN.
    """
    if options.scale > 0:
        return options, query, 1.0
    factor = -1.0 if options.scale < 0 else 0.0
    return replace(options, scale=-options.scale or 1.0), query * factor, factor


def _plan(options: KernelOptions, query: Tensor) -> Planned:
    """(call, library, query view) of every call of a piece."""
    b, n, _, d = query.shape
    grouped = library(query.device, d, 2).grouped
    found = calls(options.problem, n, single=b == 1, grouped=grouped)
    return [(call, library(query.device, d, call.rows), view(query, call)) for call in found]


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    options: KernelOptions,
    *,
    wide: bool = False,
) -> Result:
    """(out, lse) of a whole sequence.

    Args:
        query: (b, n, H, d).
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: None; `select` refuses a mask.
        options: problem, scale.
        wide: out in float32 (float64 for float64); a branch's own result has the inputs' dtype.
    """
    assert key_mask is None, "the libraries take no key mask"
    options, query, _ = _signed(options, query)
    query, key, value = (_readable(x) for x in (query, key, value))
    dtype = compute_dtype(query.dtype) if wide else query.dtype
    out = torch.empty(query.shape, dtype=dtype, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=compute_dtype(query.dtype), device=query.device)
    for piece in _pieces(options, query, key, value):
        parts = [_exact(rows_of(x, piece)) for x in (query, key, value)]
        _forward_piece(options, *parts, *(rows_of(x, piece) for x in (out, lse)))
    return Result(out, lse)


def _forward_piece(
    options: KernelOptions,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
) -> None:
    partials = []
    for call, kernels, rows in _plan(options, query):
        operands = rows, view(key, call, key=True), view(value, call, key=True)
        found = kernels.forward(*operands, options.problem.is_causal, options.scale)
        partials.append((call, *found))
    _joining(query.device.type).merge(partials, out, lse)


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    dout: Tensor,
    dlse: Tensor | None,
    result: Result,
    options: KernelOptions,
    *,
    wide: bool = False,
) -> Gradients:
    """(dq, dk, dv) of a whole sequence in the inputs' dtype, for the global out and lse.

    Args:
        query: (b, n, H, d).
        key: (b, n, H_kv, d).
        value: (b, n, H_kv, d).
        key_mask: None; `select` refuses a mask.
        dout: (b, n, H, d) in query's dtype.
        dlse: (b, n, H), or None.
        result: of the forward, or of one over more keys.
        options: problem, scale.
        wide: gradients in float32 (float64 for float64).
    """
    assert key_mask is None, "the libraries take no key mask"
    options, query, factor = _signed(options, query)
    query, key, value, dout = (_readable(x) for x in (query, key, value, dout))
    dtype = compute_dtype(query.dtype) if wide else query.dtype
    dquery, dkey, dvalue = (
        torch.empty(x.shape, dtype=dtype, device=x.device) for x in (query, key, value)
    )
    terms = [(dout, result.out, value)]
    if dlse is not None:
        terms.append(_lse_term(dlse, query, value))
    for piece in _pieces(options, query, key, value, dout):
        rows = [_exact(rows_of(x, piece)) for x in (query, key, result.lse)]
        shares = [
            share
            for term in terms
            for share in _backward_piece(options, *(_exact(rows_of(x, piece)) for x in term), *rows)
        ]
        joining = _joining(query.device.type)
        for number, total in enumerate((dquery, dkey, dvalue)):
            # The value of the term for lse is none of the caller's.
            some = shares[: len(shares) // len(terms)] if total is dvalue else shares
            parts = [(call, share[number]) for call, share in some]
            joining.gather_add(parts, rows_of(total, piece), key=total is not dquery)
    return dquery if factor == 1 else dquery.mul_(factor), dkey, dvalue


def _lse_term(dlse: Tensor, query: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(dout, out, value) whose P * (dout value^T - <dout, out>) is P * dlse, what lse adds to dS.

    The libraries take no gradient of lse. With out = 0 and ones in two columns of value, two
    columns of dout carry dlse, as a rounded part and the rest.
    """
    columns = min(2, value.shape[-1])
    ones, out, dout = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (value, query, query)
    )
    ones[..., :columns] = 1
    dout[..., 0] = dlse
    if columns == 2:
        dout[..., 1] = dlse - dout[..., 0]
    return dout, out, ones


def _backward_piece(
    options: KernelOptions,
    dout: Tensor,
    out: Tensor,
    value: Tensor,
    query: Tensor,
    key: Tensor,
    lse: Tensor,
) -> list[tuple[Call, Gradients]]:
    """(dq, dk, dv) of every call."""
    planned = _plan(options, query)
    sides = _joining(query.device.type).spread(planned, dout, out, lse)
    sides.reverse()
    found = []
    for call, kernels, rows in planned:
        dout_rows, out_rows, lse_rows = sides.pop()
        keys, values = view(key, call, key=True), view(value, call, key=True)
        causal, scale = options.problem.is_causal, options.scale
        operands = dout_rows, rows, keys, values, out_rows, lse_rows
        found.append((call, kernels.backward(*operands, causal, scale)))
    return found
