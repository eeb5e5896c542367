"""Let a dispatch mode see into the package's own ops, which hide their insides from it."""

from __future__ import annotations

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from dilated_attention_pytorch.ring import ops


def look_inside(patch: pytest.MonkeyPatch, mode: TorchDispatchMode) -> None:
    """While the patch lasts, what one device's ops compute runs under `mode`.

    A `MemoryMeter` looks inside by itself.
    """
    patch.setattr(ops, "observers", [*ops.observers, mode])
