"""The deprecated `DistributedSparsePattern`."""

from __future__ import annotations

from enum import Enum

from typing_extensions import deprecated


@deprecated(
    "DistributedSparsePattern is deprecated since v0.2.1: the one class that read it could "
    "never be constructed. Please use a DilationPattern instead. It will be removed in "
    "v0.3.0.",
    category=None,
)
class DistributedSparsePattern(Enum):
    """Deprecated: names of patterns; a value for `DistributedSparseConfig` that nothing reads.

    There is no warning at run time: a member is not made where it is used, but where the class is
    imported.
    """

    HIERARCHICAL = "hierarchical"
    NODE_LOCAL = "node_local"
    BANDWIDTH_AWARE = "bandwidth_aware"
    ADAPTIVE_LOAD_BALANCED = "adaptive_load_balanced"
