"""The deprecated `DistributedSparseConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from ._deprecated_config import DeprecatedConfig
from .distributed_sparse_pattern import DistributedSparsePattern  # type: ignore[deprecated]


@deprecated(
    "DistributedSparseConfig is deprecated since v0.2.1: the one class that read it could "
    "never be constructed. Please use a DilationPattern instead. It will be removed in "
    "v0.3.0.",
    category=None,
)
@dataclass
class DistributedSparseConfig(DeprecatedConfig):
    """Deprecated: settings of `BlockSparseRingDistributedDilatedAttention`, which never existed.

    A warning is given where one is made. Nothing is checked and nothing reads them, as in history.
    """

    record: ClassVar[LegacyRecord] = require("DistributedSparseConfig")

    pattern_type: DistributedSparsePattern = DistributedSparsePattern.HIERARCHICAL
    sparsity_ratio: float = 0.25
    block_size: int = 128
    local_sparsity: float = 0.4
    global_sparsity: float = 0.1
    inter_node_sparsity: float = 0.05
    compression_ratio: float = 0.1
    load_balance_threshold: float = 0.15
    adaptive_sparsity_rate: float = 0.05
    enable_async_communication: bool = True
    enable_gradient_compression: bool = True
    enable_load_balancing: bool = True
