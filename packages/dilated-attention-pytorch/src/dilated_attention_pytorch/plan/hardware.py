"""What a plan is made for: a GPU's memory, and the links between GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..cost import BUILT_IN
from ..cost import Link as Link
from ..cost import Links as Links


@dataclass(frozen=True, slots=True)
class GPU:
    """A kind of GPU.

    Args:
        name: as people call it.
        memory: nominal bytes.
        note: what to know of its times.
    """

    name: str
    memory: int
    note: str | None = None


GPUS: Final = {
    "h200": GPU("NVIDIA H200", 141 * 10**9),
    "h100": GPU(
        "NVIDIA H100",
        80 * 10**9,
        "times are those of the H200, which has as many multiprocessors of the same kind",
    ),
}

NVLINK: Final = BUILT_IN
