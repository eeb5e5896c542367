"""What one call of an implementation returns, forward and backward together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from dilated_attention_oracle.terms import Terms

Array = npt.NDArray[Any]


class Result(NamedTuple):
    """Forward and backward of one call, as NumPy arrays.

    Attributes:
        out: ``(b, n, H, d)``.
        lse: ``(b, n, H)``, natural logarithm.
        dq: ``(b, n, H, d)``.
        dk: ``(b, n, H_kv, d)``.
        dv: ``(b, n, H_kv, d)``.
        rows_received: ``(R,)`` integers for an implementation that reports its traffic: how many
            key/value rows, each counted once for each key/value head, a rank got from others in
            the forward pass.
        terms: For a reference only: how large the terms of each entry are, see `terms`.
    """

    out: Array
    lse: Array
    dq: Array
    dk: Array
    dv: Array
    rows_received: Array | None = None
    terms: Terms | None = None
