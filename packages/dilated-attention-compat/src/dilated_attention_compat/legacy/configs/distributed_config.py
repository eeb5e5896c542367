"""The deprecated `DistributedConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import deprecated

from ..._record import LegacyRecord
from ..._registry import require
from .._checks import check_one_of, check_positive
from ._deprecated_config import DeprecatedConfig


@deprecated(
    "DistributedConfig is deprecated since v0.2.1: nothing reads it any more. Please use "
    "group= of the ring's modules instead. It will be removed in v0.3.0.",
    category=None,
)
@dataclass
class DistributedConfig(DeprecatedConfig):
    """Deprecated: options of distributed training as an object; nothing reads it.

    A warning is given where one is made.

    Raises:
        ValueError: A field is out of range.
    """

    record: ClassVar[LegacyRecord] = require("DistributedConfig")

    world_size: int | None = None
    rank: int | None = None
    backend: str = "nccl"
    sequence_parallel: bool = False
    model_parallel: bool = False
    pipeline_parallel: bool = False
    gradient_checkpointing: bool = False
    communication_optimization: bool = True
    bucket_size_mb: int = 25
    enable_async_communication: bool = True
    gradient_compression_ratio: float | None = None
    zero_stage: int = 0

    def __post_init__(self) -> None:
        """Warn and check."""
        super().__post_init__()
        check_one_of("backend", self.backend, ("nccl", "gloo", "mpi"))
        check_one_of("zero_stage", self.zero_stage, (0, 1, 2, 3))
        check_positive("bucket_size_mb", self.bucket_size_mb)
        if self.world_size is not None:
            check_positive("world_size", self.world_size)
        if self.rank is not None and (
            self.rank < 0 or (self.world_size is not None and self.rank >= self.world_size)
        ):
            raise ValueError(
                f"rank must lie between 0 and world_size ({self.world_size}), got {self.rank}; "
                "leave it out"
            )
        ratio = self.gradient_compression_ratio
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise ValueError(
                f"gradient_compression_ratio must lie above 0 and not above 1, got {ratio}; it "
                "has no effect, leave it out"
            )
