"""The attention module inside the historical improved classes; it warns of nothing itself."""

from __future__ import annotations

from typing import ClassVar

from ._head_core import HeadCore


class ImprovedCore(HeadCore):
    """Attention over heads, with dropout on the weights and again on the output."""

    drops_output: ClassVar[bool] = True
