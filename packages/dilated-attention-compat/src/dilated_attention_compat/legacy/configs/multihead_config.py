"""The deprecated `MultiheadConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_divisible_heads, check_positive
from .._head_core import device_or_default
from ._deprecated_config import DeprecatedConfig


@deprecated(
    "MultiheadConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "keyword arguments instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class MultiheadConfig(DeprecatedConfig):
    """Deprecated: options of a multihead layer as an object; nothing reads it.

    A warning is given where one is made. `head_dim` is an attribute; `device` becomes a
    torch.device (CUDA where there is any, if None), `dtype` float32 if None.

    Raises:
        ValueError: A size is not positive, or num_heads does not divide embed_dim.
    """

    record: ClassVar[LegacyRecord] = require("MultiheadConfig")

    embed_dim: int
    num_heads: int
    bias: bool = True
    layer_norm: bool = True
    layer_norm_eps: float = 1e-5
    gamma_init: float = 1.0
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Warn, check, fill in."""
        super().__post_init__()
        check_divisible_heads(self.embed_dim, self.num_heads)
        check_positive("layer_norm_eps", self.layer_norm_eps)
        check_positive("gamma_init", self.gamma_init)
        self.head_dim = self.embed_dim // self.num_heads
        self.device = device_or_default(self.device)
        self.dtype = self.dtype or torch.float32
