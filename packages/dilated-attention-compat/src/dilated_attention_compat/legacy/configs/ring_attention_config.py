"""The deprecated `RingAttentionConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_positive
from .dilated_attention_config import DilatedAttentionConfig  # type: ignore[deprecated]


@deprecated(
    "RingAttentionConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "keyword arguments instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class RingAttentionConfig(DilatedAttentionConfig):
    """Deprecated: options of a ring as an object; nothing reads it.

    A warning is given where one is made. The fields after those of `DilatedAttentionConfig` never
    had an effect, but for `ring_size`.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: As `DilatedAttentionConfig`, or a size is not positive.
    """

    record: ClassVar[LegacyRecord] = require("RingAttentionConfig")

    block_size: int = 1024
    ring_size: int | None = None
    use_checkpointing: bool = True
    use_memory_pool: bool = True
    max_cached_buffers: int = 50

    def __post_init__(self) -> None:
        """Warn, check, fill in."""
        super().__post_init__()
        check_positive("block_size", self.block_size)
        if self.ring_size is not None:
            check_positive("ring_size", self.ring_size)
        if self.max_cached_buffers < 0:
            raise ValueError(
                f"max_cached_buffers must be non-negative, got {self.max_cached_buffers}; it has "
                "no effect, leave it out"
            )
