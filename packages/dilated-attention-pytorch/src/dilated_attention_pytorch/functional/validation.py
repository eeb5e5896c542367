"""The one place that checks what users pass: what, expected, got, and how to mend it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..pattern import DilationPattern, as_ints

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    """query (b, n, H, d); key and value (b, m, H_kv, d); one dtype, one device."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.dim() != 4:
            raise ValueError(
                f"{name} must have 4 dimensions (batch, length, heads, head_dim), got shape "
                f"{tuple(tensor.shape)}; from SDPA's (b, h, n, d) use .transpose(1, 2)"
            )
        if tensor.dtype not in DTYPES:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}"
            )
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"query, key and value must share a dtype, got query {query.dtype} and {name} "
                f"{tensor.dtype}; cast one of them"
            )
        if tensor.device != query.device:
            raise ValueError(
                f"query, key and value must be on one device, got query on {query.device} and "
                f"{name} on {tensor.device}"
            )
    shape, key_shape, value_shape = query.shape, key.shape, value.shape
    if key_shape != value_shape:
        raise ValueError(
            f"key and value must have one shape, got {tuple(key_shape)} and {tuple(value_shape)}"
        )
    for dim, name in ((0, "batch size"), (3, "head dimension")):
        if shape[dim] != key_shape[dim]:
            raise ValueError(
                f"query and key must agree in {name}, got {shape[dim]} and {key_shape[dim]}"
            )
    b, _, heads, d = shape
    kv_heads = key_shape[2]
    if b < 1 or heads < 1 or kv_heads < 1 or not 1 <= d <= 256:
        raise ValueError(
            "batch and heads must be at least 1 and head_dim in 1..256, got query shape "
            f"{tuple(shape)}"
        )
    if heads % kv_heads:
        raise ValueError(
            f"query heads must be a multiple of key/value heads, got {heads} and {kv_heads}"
        )


def check_same_length(query: Tensor, key: Tensor) -> None:
    """Self-attention: as many keys as queries."""
    if query.shape[1] != key.shape[1]:
        raise ValueError(
            f"query and key must have one length, got {query.shape[1]} and {key.shape[1]}; the "
            "pattern is defined on one sequence"
        )


def check_pattern(pattern: object, num_heads: int) -> DilationPattern:
    """A DilationPattern that serves this number of heads."""
    if not isinstance(pattern, DilationPattern):
        raise TypeError(
            f"pattern must be a DilationPattern, got {type(pattern).__name__}; build one with "
            "DilationPattern.longnet(segment_lengths, dilation_rates)"
        )
    # Traced code must not meet the cache.
    if torch.compiler.is_compiling():
        pattern.offsets(num_heads)
    else:
        _offsets(pattern, num_heads)
    return pattern


_offsets = lru_cache(maxsize=256)(DilationPattern.offsets)


def check_key_mask(key_mask: Tensor | None, key: Tensor) -> None:
    """Bool (b, length of key), True = attend."""
    if key_mask is None:
        return
    if not isinstance(key_mask, Tensor) or key_mask.dtype != torch.bool:
        got = getattr(key_mask, "dtype", type(key_mask).__name__)
        raise TypeError(f"key_mask must be a bool tensor (True = attend), got {got}")
    if key_mask.shape != key.shape[:2]:
        raise ValueError(
            f"key_mask must have key's (batch, length) = {tuple(key.shape[:2])}, got "
            f"{tuple(key_mask.shape)}"
        )
    if key_mask.device != key.device:
        raise ValueError(f"key_mask must be on {key.device}, got {key_mask.device}")


def check_cu_seqlens(
    cu_seqlens: Tensor | Sequence[int] | None, n: int, batch: int
) -> tuple[int, ...] | None:
    """Document bounds: int32, first 0, last n, not descending; batch 1."""
    if cu_seqlens is None:
        return None
    if isinstance(cu_seqlens, Tensor):
        if cu_seqlens.dtype not in (torch.int32, torch.int64) or cu_seqlens.dim() != 1:
            raise TypeError(
                "cu_seqlens must be a 1-d int32 tensor, got "
                f"{cu_seqlens.dim()}-d {cu_seqlens.dtype}"
            )
        bounds = tuple(int(x) for x in cu_seqlens.tolist())
    else:
        bounds = as_ints("cu_seqlens", cu_seqlens)
    if batch != 1:
        raise ValueError(f"cu_seqlens packs documents into batch size 1, got batch size {batch}")
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != n:
        raise ValueError(
            f"cu_seqlens must run from 0 to the sequence length {n}, got {list(bounds)}"
        )
    if any(b < a for a, b in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must not descend, got {list(bounds)}")
    return bounds


def check_numbers(scale: float | None, dropout_p: float, head_dim: int) -> float:
    """The softmax scale (1/sqrt(d) by default), once dropout_p and scale are sound."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, (int, float)):
        raise TypeError(f"dropout_p must be a number, got {dropout_p!r}")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must lie in [0, 1], got {dropout_p}")
    if scale is None:
        return 1 / math.sqrt(head_dim)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale must be a number or None, got {scale!r}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    return float(scale)


def check_seed(seed: int | Tensor | None) -> None:
    """An int in the int64 range (or its unsigned twin), or a 0-d int64 tensor."""
    if seed is None:
        return
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.dim() != 0:
            raise TypeError(f"a seed tensor must be 0-d int64, got {seed.dim()}-d {seed.dtype}")
    elif isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, a 0-d int64 tensor or None, got {seed!r}")
    elif not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit in 64 bits, got {seed}")


def check_switches(
    pattern: DilationPattern,
    key_mask: Tensor | None,
    cu_seqlens: tuple[int, ...] | None,
    dropout_p: float,
) -> None:
    """torchscale's switches know neither masks, documents nor dropout."""
    if pattern.exact:
        return
    for name, used in (
        ("key_mask", key_mask is not None),
        ("cu_seqlens", cu_seqlens is not None),
        ("dropout_p > 0", dropout_p > 0),
    ):
        if used:
            raise ValueError(
                f"{name} cannot be combined with phantom_keys, detach_mix or shift_rows; use "
                "exact=True (or leave the switches off)"
            )


def check_flag(name: str, value: object) -> None:
    """A real bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
