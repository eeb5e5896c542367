"""The deprecated `SparseAttentionConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_positive, check_sparse_pattern, check_sparsity_range
from .dilated_attention_config import DilatedAttentionConfig  # type: ignore[deprecated]


@deprecated(
    "SparseAttentionConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "a DilationPattern instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class SparseAttentionConfig(DilatedAttentionConfig):
    """Deprecated: options of a block-sparse layer as an object; nothing reads it.

    A warning is given where one is made. Of the fields after those of `DilatedAttentionConfig`
    only `pattern_type` and `block_size` ever had an effect.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: As `DilatedAttentionConfig`, or an own field is out of range.
    """

    record: ClassVar[LegacyRecord] = require("SparseAttentionConfig")

    pattern_type: str = "dilated_sparse"
    sparsity_ratio: float = 0.25
    block_size: int = 128
    enable_adaptive: bool = False
    min_sparsity: float = 0.1
    max_sparsity: float = 0.9

    def __post_init__(self) -> None:
        """Warn, check, fill in."""
        super().__post_init__()
        check_sparse_pattern(self.pattern_type, self.sparsity_ratio)
        check_sparsity_range(self.min_sparsity, self.max_sparsity)
        check_positive("block_size", self.block_size)
