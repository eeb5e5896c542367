"""The bytes that a ring must move, counted pair by pair, and those that it recorded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from dilated_attention_pytorch import positions, ring_dilated_attention
from dilated_attention_pytorch.comm import SentMessage, record_messages

from .definition import Question
from .ring_calls import Ring, library_pattern

# (label, sender, receiver) -> bytes
Bytes = Counter[tuple[str, int, int]]


def required(
    question: Question, ring: Ring, *, batch: int, width: int, itemsize: int
) -> tuple[Bytes, Bytes]:
    """(forward, backward), with a partials and gradients in float32 (float64 for float64)."""
    owned = [_owned(question.n, ring, rank) for rank in range(ring.size)]
    pairs = question.pairs()
    partial = max(itemsize, 4)
    forward: Bytes = Counter()
    backward: Bytes = Counter()
    if ring.layout == "sharded":
        for (source, target), rows in question.travellers(owned, pairs).items():
            size = batch * len(rows) * 2 * width
            forward["key_value", source, target] = size * itemsize
            backward["gradient", target, source] = size * partial
        # The same rows travel again, and their gradients come home.
        backward.update(forward)
        return forward, backward
    for (source, target), answers in question.answered(owned, pairs).items():
        size = batch * len(answers) * partial
        forward["partial", source, target] = size * (width + 1)
        backward["partial", source, target] = size * width
    for source, mine in enumerate(owned):
        for target in range(ring.size):
            cells = batch * len(mine) * question.heads
            if source != target and cells:
                out = cells * width * itemsize
                forward["result", source, target] = out + cells * partial
                backward["result", source, target] = out
    return forward, backward


def _owned(n: int, ring: Ring, rank: int) -> list[int]:
    found: list[int] = positions(
        n,
        ring_size=ring.size,
        rank=rank,
        order=ring.options["order"],
        shard_lengths=ring.shard_lengths,
    ).tolist()
    return found


def recorded(
    question: Question, ring: Ring, tensors: list[Tensor], **options: Any
) -> tuple[Bytes, Bytes]:
    """(forward, backward) as the simulated ranks sent them; key masks are not counted."""
    query, key, value = tensors
    with record_messages() as sent:
        out = ring_dilated_attention(
            query,
            key,
            value,
            library_pattern(question.pattern),
            is_causal=question.is_causal,
            cu_seqlens=question.cu_seqlens,
            deterministic=ring.deterministic,
            **ring.options,
            **options,
        )
    with record_messages() as sent_back:
        out.backward(torch.ones_like(out))
    return total(sent), total(sent_back)


def total(messages: list[SentMessage]) -> Bytes:
    """Bytes per (label, sender, receiver), masks left out."""
    found: Bytes = Counter()
    for message in messages:
        assert message.nbytes > 0, "empty messages are not sent"
        if message.label != "key_mask":
            found[message.label, message.source, message.target] += message.nbytes
    return found


def bytes_equal_the_count_of_pairs(
    question: Question,
    ring: Ring,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    key_mask: torch.Tensor | None = None,
) -> None:
    """Forward and backward, every pair of ranks, every kind of message."""
    width = 3
    shapes = [(batch, question.n, h, width) for h in (question.heads, *2 * (question.kv_heads,))]
    tensors = [torch.ones(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    forward, backward = required(question, ring, batch=batch, width=width, itemsize=dtype.itemsize)
    found = recorded(question, ring, tensors, key_mask=key_mask)
    assert found[0] == forward
    assert found[1] == backward
