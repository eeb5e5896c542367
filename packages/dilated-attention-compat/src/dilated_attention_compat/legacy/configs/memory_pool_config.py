"""The deprecated `MemoryPoolConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_positive
from .._head_core import device_or_default
from ._deprecated_config import DeprecatedConfig


@deprecated(
    "MemoryPoolConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "PyTorch's own allocator instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class MemoryPoolConfig(DeprecatedConfig):
    """Deprecated: settings of the memory pool, which is gone; nothing reads them.

    A warning is given where one is made. `device` is CUDA where there is any, if None.

    Raises:
        ValueError: A size is not positive.
    """

    record: ClassVar[LegacyRecord] = require("MemoryPoolConfig")

    hot_cache_size: int = 50
    hot_cache_threshold: int = 10
    allow_buffer_slicing: bool = True
    cleanup_threshold_mb: int = 100
    max_pool_size_mb: int = 1024
    enable_statistics: bool = True
    device: torch.device | None = None

    def __post_init__(self) -> None:
        """Warn, check, fill in."""
        super().__post_init__()
        for name in (
            *("hot_cache_size", "hot_cache_threshold", "cleanup_threshold_mb"),
            "max_pool_size_mb",
        ):
            check_positive(name, getattr(self, name))
        self.device = device_or_default(self.device)
