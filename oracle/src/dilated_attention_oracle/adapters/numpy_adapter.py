"""The oracle as an implementation: forward and backward in one call, inputs rounded to a dtype."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dilated_attention_oracle.gradients import backward
from dilated_attention_oracle.operator import forward
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.precision import lse_dtype, round_to
from dilated_attention_oracle.results import Result
from dilated_attention_oracle.terms import term_sizes


def reference(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    pattern: Pattern,
    dtype: str = "float64",
    *,
    dout: npt.ArrayLike,
    dlse: npt.ArrayLike | None = None,
    **options: Any,
) -> Result:
    """The float64 oracle on inputs rounded to a dtype: what an implementation is compared with.

    Args:
        query: ``(b, n, H, d)``.
        key: ``(b, n, H_kv, d)``.
        value: ``(b, n, H_kv, d)``.
        pattern: The dilation pattern.
        dtype: The dtype to which query, key, value and dout are rounded first.
        dout: ``(b, n, H, d)``.
        dlse: ``(b, n, H)``, rounded to the dtype that lse has, or None.
        **options: The options of `forward`.

    Returns:
        The result in float64, not rounded, with the sizes of its terms.

    Raises:
        ValueError: As `forward`.
        TypeError: As `forward`.
    """
    q, k, v, grad = (round_to(x, dtype) for x in (query, key, value, dout))
    out, lse = forward(q, k, v, pattern, **options)
    gradients = (grad, round_dlse(dlse, dtype))
    dq, dk, dv = backward(q, k, v, pattern, *gradients, **options)
    terms = term_sizes(q, k, v, pattern, *gradients, **options)
    return Result(out, lse, dq, dk, dv, terms=terms)


def round_dlse(dlse: npt.ArrayLike | None, dtype: str) -> npt.ArrayLike | None:
    """Round dlse to the dtype that lse has for inputs of the given dtype.

    Args:
        dlse: ``(b, n, H)`` or None.
        dtype: Dtype of the inputs.

    Returns:
        The rounded array, or None.
    """
    return None if dlse is None else round_to(dlse, lse_dtype(dtype))
