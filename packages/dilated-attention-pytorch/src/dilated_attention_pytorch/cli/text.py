"""Real text that every machine has: the sources of Python's own standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def standard_library() -> bytes:
    """All top-level modules of the standard library in alphabetical order, as one text.

    Raises:
        FileNotFoundError: This Python comes without sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not text:
        raise FileNotFoundError(f"no Python sources in {folder}")
    return text


def draw_batches(text: bytes, steps: int, batch: int, length: int, seed: int) -> Bytes:
    """Windows at random places of a text, the same for the same arguments.

    Args:
        text: At least `length` bytes.
        steps: Number of batches.
        batch: Windows in a batch.
        length: Bytes in a window.
        seed: Of the places.

    Returns:
        (steps, batch, length).

    Raises:
        ValueError: The text is too short.
    """
    if len(text) < length:
        raise ValueError(
            f"the text has {len(text):,} bytes, at least {length:,} are needed; give a longer one"
        )
    starts = np.random.default_rng(seed).integers(len(text) - length + 1, size=(steps, batch))
    windows: Bytes = np.frombuffer(text, dtype=np.uint8)[starts[..., None] + np.arange(length)]
    return windows
