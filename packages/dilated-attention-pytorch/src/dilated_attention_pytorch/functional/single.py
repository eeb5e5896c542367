"""The operator on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from torch import Tensor

from ..pattern import DilationPattern
from . import validation
from .call import CallOptions, autocast, check_local, run_local


@overload
def dilated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    *,
    is_causal: bool = ...,
    scale: float | None = ...,
    key_mask: Tensor | None = ...,
    cu_seqlens: Tensor | Sequence[int] | None = ...,
    dropout_p: float = ...,
    seed: int | Tensor | None = ...,
    backend: str = ...,
    deterministic: bool = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...


@overload
def dilated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    *,
    is_causal: bool = ...,
    scale: float | None = ...,
    key_mask: Tensor | None = ...,
    cu_seqlens: Tensor | Sequence[int] | None = ...,
    dropout_p: float = ...,
    seed: int | Tensor | None = ...,
    backend: str = ...,
    deterministic: bool = ...,
    return_lse: bool,
) -> Any: ...


def dilated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
    deterministic: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Exact dilated attention of `(b, n, h, d)` tensors; from SDPA's layout use `.transpose(1, 2)`.

    With `C[h, p, k]` the number of branches in which query p of head h sees key k,

        lse[p] = log sum_k C[p, k] exp(scale <q[p], k[k]>)
        out[p] = sum_k C[p, k] exp(scale <q[p], k[k]> - lse[p]) v[k]

    which equals LongNet's mix of its branches (arXiv 2307.02486, Eq. 10). A row that sees no key
    has out 0 and lse -inf. Gradients are exact, through out and through lse.

    Args:
        query: (b, n, H, d), float16, bfloat16, float32 or float64, 1 <= d <= 256.
        key: (b, n, H_kv, d), H_kv a divisor of H; head h reads key/value head `h // (H // H_kv)`.
        value: (b, n, H_kv, d).
        pattern: branches and offset rule.
        is_causal: a query sees no later key.
        scale: softmax scale, 1/sqrt(d) where None.
        key_mask: (b, n) bool, True = attend (the opposite of modules' `key_padding_mask`).
        cu_seqlens: (docs + 1,) int32 bounds of packed documents, b = 1; attention never crosses
            one and segments restart in each.
        dropout_p: probability of dropping an entry of the softmax; always applied.
        seed: of the dropout mask, an int or a 0-d int64 tensor; drawn from torch's generator
            where None. The mask depends on it and on global indices alone.
        backend: `auto`, or the name of a backend, which then serves the call or raises.
        deterministic: results repeat bitwise.
        return_lse: return (out, lse).

    Returns:
        out (b, n, H, d) in query's dtype; with `return_lse` also lse (b, n, H), natural log,
        float32 (float64 for float64 inputs).

    Raises:
        ValueError: wrong shape or value.
        TypeError: wrong dtype or kind.

    Example:
        >>> import torch
        >>> pattern = DilationPattern.longnet([16, 32], [1, 2])
        >>> q = k = v = torch.ones(1, 64, 2, 8)
        >>> dilated_attention(q, k, v, pattern).shape
        torch.Size([1, 64, 2, 8])
    """
    options = CallOptions(
        is_causal, scale, key_mask, cu_seqlens, dropout_p, seed, backend, deterministic, return_lse
    )
    query, key, value = autocast(query, key, value)
    check_local(query, key, value, pattern, options)
    validation.check_same_length(query, key)
    return run_local(query, key, value, pattern, options)
