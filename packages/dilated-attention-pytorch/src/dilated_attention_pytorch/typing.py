"""Type aliases used across the package.

Axis letters in comments and docstrings: `b` batch, `n` sequence length (global), `h` query head
of `H`, `g` key/value head of `H_kv`, `d` head dim, `w` segment length, `r` dilation, `R` ring size.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
OffsetTable: TypeAlias = tuple[tuple[int | None, ...], ...]
