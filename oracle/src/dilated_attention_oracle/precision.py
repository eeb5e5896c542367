"""The four dtypes, by name: their epsilon, and rounding to them in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.inputs import FloatArray

DTYPES = ("float64", "float32", "float16", "bfloat16")
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


def require_dtype(dtype: str) -> str:
    """The name itself, if it is one of the four.

    Raises:
        ValueError: If it is not.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}")
    return dtype


def lse_dtype(dtype: str) -> str:
    """The dtype that lse has for inputs of the given dtype: float64 for float64, else float32.

    Raises:
        ValueError: If the dtype is not one of the four.
    """
    return "float64" if require_dtype(dtype) == "float64" else "float32"


def round_to(array: npt.ArrayLike, dtype: str) -> FloatArray:
    """The nearest numbers that the dtype holds, ties to even, as float64.

    NumPy has no bfloat16: it is the upper half of a float32, rounded by adding half of the last
    kept place.

    Args:
        array: Any shape, floating point.
        dtype: One of `DTYPES`.

    Returns:
        float64 array of the same shape.

    Raises:
        ValueError: If the dtype is not one of the four.
    """
    values = np.asarray(array, dtype=np.float64)
    if require_dtype(dtype) != "bfloat16":
        return values.astype(dtype).astype(np.float64)
    single = values.astype(np.float32)
    bits = np.atleast_1d(single).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    # A NaN must not be carried into an infinity by the addition.
    kept = np.where(np.isnan(single), single, rounded.view(np.float32).reshape(single.shape))
    return kept.astype(np.float64)
