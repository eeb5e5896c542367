"""The memory meter of the command line, for tests that measure."""

from __future__ import annotations

from dilated_attention_pytorch.cli.memory_meter import MemoryMeter as MemoryMeter
