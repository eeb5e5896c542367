"""The deprecated `SparsePatternConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from ._deprecated_config import DeprecatedConfig
from ._sparse_pattern_settings import SparsePatternSettings


@deprecated(
    "SparsePatternConfig is deprecated since v0.2.1: the class that reads it weights tokens "
    "wrongly. Please use a DilationPattern instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class SparsePatternConfig(DeprecatedConfig, SparsePatternSettings):
    """Deprecated: the fields of `SparsePatternSettings`, with a warning where one is made.

    Nothing is checked before `BlockSparseRingDilatedAttention` uses it, as in history.
    """

    record: ClassVar[LegacyRecord] = require("SparsePatternConfig")
