"""The deprecated `PatternConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from ._deprecated_config import DeprecatedConfig
from .pattern_type import PatternType  # type: ignore[deprecated]


@deprecated(
    "PatternConfig is deprecated since v0.2.1: the generator it configured is gone. Please "
    "use a DilationPattern instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class PatternConfig(DeprecatedConfig):
    """Deprecated: settings of the pattern generator, which is gone; nothing reads them.

    A warning is given where one is made. Nothing is checked, as in history.
    """

    record: ClassVar[LegacyRecord] = require("PatternConfig")

    pattern_type: PatternType = PatternType.DILATED_SPARSE
    sparsity_ratio: float = 0.25
    block_size: int = 128
    local_window_size: int = 512
    global_tokens: int = 64
    dilation_rates: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    stride: int = 4
    random_seed: int | None = None
    quality_threshold: float = 0.95
    enable_caching: bool = True
    enable_compression: bool = False
