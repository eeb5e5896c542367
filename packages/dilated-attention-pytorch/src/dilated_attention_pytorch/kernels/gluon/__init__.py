"""Hopper kernels: a producer streams what `schedule/streams.py` lists, two consumers compute.

What this module says is known without triton.
"""

from __future__ import annotations

from typing import Final

# Views of the streamed tensors that the kernels take, and most rows that they stream at a time.
MOST_VIEWS: Final = 12
MOST_ROWS: Final = 128

# Why the compiler refused a kernel, if it did; `explain()` says so from then on.
failures: list[str] = []
