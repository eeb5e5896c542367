"""Rows of a message in one flat buffer: all keys, then all values; (b, row and head, d) each.

The rows and heads of a key class stand together, heads fastest, classes in order. So one kernel
packs a message, whatever the number of classes, and each class is a strided view of the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from ..kernels.options import KeyPart
from ..schedule import KeyClass, Message
from .indexing import index_tensor

Shape = tuple[int, int, int, int]


def block_shapes(
    message: Message, classes: Sequence[KeyClass], batch: int, head_dim: int
) -> list[Shape]:
    """(b, rows, heads, d) of each class's block."""
    return [
        (batch, len(rows), len(key_class.heads), head_dim)
        for rows, key_class in zip(message.rows, classes, strict=True)
    ]


def flat_size(shapes: Sequence[Shape]) -> int:
    """Elements of a flat buffer with keys and values of these shapes."""
    return 2 * sum(torch.Size(shape).numel() for shape in shapes)


def views(flat: Tensor, shapes: Sequence[Shape]) -> list[tuple[Tensor, Tensor]]:
    """(key, value) views of each class's block in a flat buffer."""
    half, found, at = flat.numel() // 2, [], flat.storage_offset()
    for shape in shapes:
        b, rows, heads, d = shape
        strides = (half // b, heads * d, d, 1)
        found.append(
            (flat.as_strided(shape, strides, at), flat.as_strided(shape, strides, at + half))
        )
        at += rows * heads * d
    return found


@lru_cache(maxsize=1024)
def _places(
    message: Message, classes: tuple[KeyClass, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(row in the sender's storage, key/value head) of everything in a message, in its order."""
    rows = [np.repeat(r, len(c.heads)) for r, c in zip(message.rows, classes, strict=True)]
    heads = [np.tile(c.heads, len(r)) for r, c in zip(message.rows, classes, strict=True)]
    return (
        index_tensor(np.concatenate(rows), device),
        index_tensor(np.concatenate(heads).astype(np.int64), device),
    )


def head_index(key_class: KeyClass, device: torch.device) -> Tensor:
    """The class's key/value heads, as an index tensor."""
    return torch.tensor(key_class.heads, device=device)


def pack(message: Message, classes: tuple[KeyClass, ...], key: Tensor, value: Tensor) -> Tensor:
    """Copy the message's rows out of a shard's key and value."""
    b, _, _, d = key.shape
    rows, heads = _places(message, classes, key.device)
    packed = key.new_empty((2, b, len(rows), d))
    for tensor, out in zip((key, value), packed, strict=True):
        if tensor.stride(1) == tensor.shape[2] * tensor.stride(2):
            at = rows * tensor.shape[2] + heads
            torch.index_select(tensor.flatten(1, 2), 1, at, out=out)
        else:
            torch.ops.aten.index.Tensor_out(tensor, [None, rows, heads], out=out)
    return packed.view(-1)


def add_back(
    message: Message,
    classes: tuple[KeyClass, ...],
    flat: Tensor,
    dkey: Tensor,
    dvalue: Tensor,
) -> None:
    """Add gradients of a message's rows, packed alike, to the shard's own, which are contiguous."""
    b, _, total, d = dkey.shape
    rows, heads = _places(message, classes, dkey.device)
    at = rows * total + heads
    # No row and head occurs twice, so the sums do not depend on an order.
    for tensor, packed in zip((dkey, dvalue), flat.view(2, b, len(rows), d), strict=True):
        tensor.view(b, -1, d).index_add_(1, at, packed)


@lru_cache(maxsize=1024)
def _mask_rows(message: Message, device: torch.device) -> Tensor:
    return index_tensor(np.concatenate(message.rows), device)


def pack_mask(message: Message, key_mask: Tensor) -> Tensor:
    """The key mask of the message's rows, one byte a row and class: (b, rows of all classes)."""
    return key_mask[:, _mask_rows(message, key_mask.device)].to(torch.uint8).flatten()


def mask_size(message: Message, batch: int) -> int:
    """Bytes of a packed mask."""
    return batch * sum(len(rows) for rows in message.rows)


def unpack(
    message: Message,
    classes: Sequence[KeyClass],
    flat: Tensor,
    flat_mask: Tensor | None,
    batch: int,
    head_dim: int,
) -> list[KeyPart]:
    """The received rows as one key part for each class."""
    blocks = views(flat, block_shapes(message, classes, batch, head_dim))
    masks: list[Tensor | None] = [None] * len(classes)
    if flat_mask is not None:
        whole = flat_mask.view(torch.bool).view(batch, -1)
        ends = list(accumulate(len(rows) for rows in message.rows))
        masks = [
            whole[:, end - len(rows) : end] for end, rows in zip(ends, message.rows, strict=True)
        ]
    return [KeyPart(k, v, mask) for (k, v), mask in zip(blocks, masks, strict=True)]
