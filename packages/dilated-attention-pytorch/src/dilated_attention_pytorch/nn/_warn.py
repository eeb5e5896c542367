"""Warnings that point at the line of the caller outside this package and PyTorch."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

_SKIPPED: Final = (
    str(Path(torch.__file__).parent) + os.sep,
    str(Path(__file__).parent.parent) + os.sep,
)

_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "use_tf32": "TF32 is a switch of the whole process: set torch.backends.cuda.matmul.allow_tf32",
    "device": "this module has no parameters and runs on the device of its inputs",
    "dtype": "this module has no parameters and computes in the dtype of its inputs",
    "chunk_size_kv": "the keys and values held at once are bounded by buffer_shards",
}


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn with the file and line of the first frame outside this package and PyTorch."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def warn_without_effect(module: object, **given: object) -> None:
    """One FutureWarning for the historical arguments that were given and change nothing."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        reasons = "; ".join(f"{name}: {_WITHOUT_EFFECT[name]}" for name in names)
        warn_caller(
            f"{type(module).__name__}: {', '.join(names)} no longer has an effect ({reasons}). "
            "Leave it out.",
            FutureWarning,
        )


def warn_if_swapped(
    module: object, segment_lengths: Sequence[int] | None, dilation_rates: Sequence[int] | None
) -> None:
    """Warn where every dilation rate exceeds its segment length: the order was mistaken."""
    pairs = list(zip(segment_lengths or (), dilation_rates or (), strict=False))
    if pairs and all(r > w for w, r in pairs):
        warn_caller(
            f"{type(module).__name__} takes (dilation_rates, segment_lengths) in this order by "
            f"position; got segment_lengths={[w for w, _ in pairs]}, all below dilation_rates="
            f"{[r for _, r in pairs]}. Pass both by keyword.",
            UserWarning,
        )
