"""Peak attention memory of a rank, measured while it computes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional import ring_dilated_attention
from ..layout import even_lengths
from ..pattern import DilationPattern
from .memory_meter import MemoryMeter
from .rank import Rank

HEADS, HEAD_DIM = 4, 32


def pattern_of(length: int) -> DilationPattern:
    """A ladder whose last branch spans the sequence."""
    segments = [max(1, length // 64), max(1, length // 8), length]
    return DilationPattern.longnet(segments, [1, 4, 32])


def peak_bytes(rank: Rank, length: int) -> int:
    """Most bytes alive at once on this rank in one causal forward and backward.

    The rank's rows of q, k, v, their gradients, what is saved for backward, receive buffers and
    temporaries: all of it, as tensor storage that is alive on the CPU, or as the allocator's peak
    on CUDA.

    Args:
        rank: This process.
        length: Global sequence length, divided over the ring.
    """
    pattern = pattern_of(length)
    rows = even_lengths(length, rank.ring_size)[rank.index]

    def attend() -> None:
        query, key, value = (
            torch.randn(1, rows, HEADS, HEAD_DIM, device=rank.device, requires_grad=True)
            for _ in range(3)
        )
        # One rank computes by the kernels of the others: rings have them alone.
        out: Tensor = ring_dilated_attention(
            query, key, value, pattern, group=rank.group, is_causal=True, backend="eager"
        )
        out.backward(torch.ones_like(out))

    if rank.device.type == "cuda":
        before: int = torch.cuda.memory_allocated(rank.device)
        torch.cuda.reset_peak_memory_stats(rank.device)
        attend()
        highest: int = torch.cuda.max_memory_allocated(rank.device)
        return highest - before
    meter = MemoryMeter()
    with meter:
        attend()
    return meter.peak
