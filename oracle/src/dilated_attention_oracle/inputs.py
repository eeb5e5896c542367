"""One checked bundle of everything that a call of the operator is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.pattern import Pattern

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Checked arguments; arrays are float64, ``cu_seqlens`` always present (one document if none).

    Attributes:
        query: ``(b, n, H, d)``.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        is_causal: Whether a query sees only keys at its own or an earlier position.
        scale: Softmax scale.
        key_mask: ``(b, n)``, True = attend; all True if none was given.
        cu_seqlens: ``(docs + 1,)`` document boundaries.
        dropout_p: Probability of dropping an entry of P.
        seed: Dropout seed, 0 when nothing is dropped.
    """

    query: FloatArray
    key: FloatArray
    value: FloatArray
    pattern: Pattern
    is_causal: bool
    scale: float
    key_mask: BoolArray
    cu_seqlens: IntArray
    dropout_p: float
    seed: int

    @property
    def batch(self) -> int:
        """Batch size b."""
        return int(self.query.shape[0])

    @property
    def length(self) -> int:
        """Global sequence length n."""
        return int(self.query.shape[1])

    @property
    def num_heads(self) -> int:
        """Number of query heads H."""
        return int(self.query.shape[2])

    def key_head(self, head: int) -> int:
        """The key/value head ``g = h // (H // H_kv)`` of query head h (grouped query)."""
        return head // (self.num_heads // int(self.key.shape[2]))


def prepare(
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
) -> Inputs:
    """Check the arguments of a call and bring them into one form.

    Raises:
        ValueError: For a wrong shape, length, head count, boundary, probability or a missing seed,
            and for torchscale switches together with documents, a key mask or dropout.
        TypeError: For an array of a wrong kind or a pattern that is not a `Pattern`.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern: expected a Pattern, got {type(pattern).__name__}")
    q, k, v = (float_array(x, name) for x, name in zip((query, key, value), "qkv", strict=True))
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(f"q, k: expected (b, n, h, d), got shapes {q.shape} and {k.shape}")
    if v.shape != k.shape:
        raise ValueError(f"v: expected the shape of k, {k.shape}, got {v.shape}")
    batch, n, num_heads, width = q.shape
    if k.shape[:2] != (batch, n) or k.shape[3] != width:
        raise ValueError(f"k: expected ({batch}, {n}, H_kv, {width}) like q, got {k.shape}")
    if width < 1 or k.shape[2] < 1 or num_heads % k.shape[2] != 0 or num_heads < 1:
        raise ValueError(
            "q, k: expected d >= 1 and a number of key heads that divides that of the query "
            f"heads, got {k.shape[2]} and {num_heads} heads, d = {width}"
        )
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"dropout_p: expected a probability in [0, 1], got {dropout_p}")
    if dropout_p > 0.0 and seed is None:
        raise ValueError("seed: expected an int where dropout_p > 0, got None")
    if not pattern.is_exact and (cu_seqlens is not None or key_mask is not None or dropout_p > 0.0):
        raise ValueError(
            "pattern: phantom_keys, detach_mix and shift_rows have no meaning together with "
            "cu_seqlens, key_mask or dropout; turn the switches off"
        )
    return Inputs(
        query=q,
        key=k,
        value=v,
        pattern=pattern,
        is_causal=bool(is_causal),
        scale=width**-0.5 if scale is None else float(scale),
        key_mask=_key_mask(key_mask, batch, n),
        cu_seqlens=_boundaries(cu_seqlens, batch, n),
        dropout_p=float(dropout_p),
        seed=0 if seed is None else int(seed),
    )


def float_array(array: npt.ArrayLike, name: str) -> FloatArray:
    """The array as float64.

    Raises:
        TypeError: If it does not hold floating-point numbers.
    """
    checked: npt.NDArray[Any] = np.asarray(array)
    if checked.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point numbers, got dtype {checked.dtype}")
    return checked.astype(np.float64)


def _key_mask(key_mask: npt.ArrayLike | None, batch: int, n: int) -> BoolArray:
    if key_mask is None:
        return np.ones((batch, n), dtype=np.bool_)
    mask: npt.NDArray[Any] = np.asarray(key_mask)
    if mask.dtype != np.bool_:
        raise TypeError(f"key_mask: expected bool, True = attend, got dtype {mask.dtype}")
    if mask.shape != (batch, n):
        raise ValueError(f"key_mask: expected shape ({batch}, {n}), got {mask.shape}")
    return mask


def _boundaries(cu_seqlens: npt.ArrayLike | None, batch: int, n: int) -> IntArray:
    if cu_seqlens is None:
        return np.array([0, n], dtype=np.int64)
    cu: npt.NDArray[Any] = np.asarray(cu_seqlens)
    if cu.dtype.kind != "i":
        raise TypeError(f"cu_seqlens: expected integers, got dtype {cu.dtype}")
    if batch != 1:
        raise ValueError(f"cu_seqlens: packed documents need batch size 1, got {batch}")
    if cu.ndim != 1 or cu.size < 2 or cu[0] != 0 or cu[-1] != n or (np.diff(cu) < 0).any():
        raise ValueError(f"cu_seqlens: expected 0 = cu[0] <= ... <= cu[-1] = {n}, got {cu}")
    return cu.astype(np.int64)
