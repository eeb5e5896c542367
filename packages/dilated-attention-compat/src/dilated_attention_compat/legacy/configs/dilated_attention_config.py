"""The deprecated `DilatedAttentionConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_pattern, check_probability
from .._head_core import device_or_default
from ._deprecated_config import DeprecatedConfig


@deprecated(
    "DilatedAttentionConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "keyword arguments instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class DilatedAttentionConfig(DeprecatedConfig):
    """Deprecated: options of an attention module as an object; nothing reads it.

    A warning is given where one is made. `device` becomes a torch.device (CUDA where there is any,
    if None), `dtype` float32 if None.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: The lists do not match, an entry is not positive, or dropout lies outside 0
            to 1.
    """

    record: ClassVar[LegacyRecord] = require("DilatedAttentionConfig")

    segment_lengths: list[int]
    dilation_rates: list[int]
    dropout: float = 0.0
    use_tf32: bool = True
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Warn, check, fill in."""
        super().__post_init__()
        check_pattern(self.segment_lengths, self.dilation_rates)
        check_probability(self.dropout)
        self.device = device_or_default(self.device)
        self.dtype = self.dtype or torch.float32

    @property
    def num_groups(self) -> int:
        """Number of head groups."""
        return len(self.segment_lengths)

    @property
    def max_segment_length(self) -> int:
        """The largest segment length."""
        return max(self.segment_lengths)
