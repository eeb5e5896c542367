"""The public functions as implementations that the conformance kit tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dilated_attention_oracle.adapters.torch_adapter import TorchImplementation, pattern_factory
from dilated_attention_oracle.conformance.protocol import CAPABILITIES
from dilated_attention_pytorch import (
    Branch,
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
)
from dilated_attention_pytorch.comm import SentMessage, record_messages


class _CountedRing:
    """`ring_dilated_attention`, remembering how many key/value rows each rank got."""

    def __init__(self) -> None:
        self.received = np.zeros(1, dtype=np.int64)

    def __call__(
        self, query: torch.Tensor, *tensors: Any, ring_size: int, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with record_messages() as messages:
            out, lse = ring_dilated_attention(query, *tensors, ring_size=ring_size, **options)
        self.received = np.zeros(ring_size, dtype=np.int64)
        b, _, _, d = query.shape
        for message in messages:
            self.received[message.target] += _rows(message, b * d * query.element_size())
        return out, lse

    def rows(self) -> np.ndarray:
        """Rows that each rank received in the last call."""
        return self.received


def _rows(message: SentMessage, row_bytes: int) -> int:
    return message.nbytes // (2 * row_bytes) if message.label == "key_value" else 0


_ring = _CountedRing()
public = TorchImplementation(
    dilated_attention,
    pattern_factory(DilationPattern, Branch),
    supports=frozenset(CAPABILITIES),
    ring_function=_ring,
    rows_received=_ring.rows,
)
