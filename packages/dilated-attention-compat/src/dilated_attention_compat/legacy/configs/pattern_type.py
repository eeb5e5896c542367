"""The deprecated `PatternType`."""

from __future__ import annotations

from enum import Enum

from typing_extensions import deprecated


@deprecated(
    "PatternType is deprecated since v0.2.1: the generator it chose a pattern for is gone. "
    "Please use a DilationPattern instead. It will be removed in v0.3.0.",
    category=None,
)
class PatternType(Enum):
    """Deprecated: names of patterns; a value for `PatternConfig` that nothing reads.

    There is no warning at run time: a member is not made where it is used, but where the class is
    imported. The last two always raised in the generator, which is gone.
    """

    LOCAL_WINDOW = "local_window"
    DILATED_SPARSE = "dilated_sparse"
    GLOBAL_LOCAL = "global_local"
    STRIDED = "strided"
    RANDOM = "random"
    LEARNED = "learned"
    HIERARCHICAL = "hierarchical"
    CONTENT_ADAPTIVE = "content_adaptive"
