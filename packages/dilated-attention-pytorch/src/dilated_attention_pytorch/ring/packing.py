"""Rows of a message in one flat buffer: for each key class its keys, then its values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.options import KeyPart
from ..schedule import KeyClass, Message
from .indexing import index_tensor


def block_shapes(
    message: Message, classes: Sequence[KeyClass], batch: int, head_dim: int
) -> list[tuple[int, int, int, int]]:
    """(b, rows, heads, d) of each class's block."""
    return [
        (batch, len(rows), len(key_class.heads), head_dim)
        for rows, key_class in zip(message.rows, classes, strict=True)
    ]


def views(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[tuple[Tensor, Tensor]]:
    """(key, value) views of each class's block in a flat buffer."""
    sizes = [torch.Size(shape).numel() for shape in shapes for _ in range(2)]
    parts = torch.split(flat, sizes)
    return [
        (parts[2 * i].view(shape), parts[2 * i + 1].view(shape)) for i, shape in enumerate(shapes)
    ]


def flat_size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Elements of a flat buffer with keys and values of these shapes."""
    return 2 * sum(torch.Size(shape).numel() for shape in shapes)


def row_index(message: Message, index: int, device: torch.device) -> Tensor:
    """Row numbers of one class in the sender's storage, as an index tensor."""
    return index_tensor(message.rows[index], device)


def head_index(key_class: KeyClass, device: torch.device) -> Tensor:
    """The class's key/value heads, as an index tensor."""
    return torch.tensor(key_class.heads, device=device)


def pack(message: Message, classes: Sequence[KeyClass], key: Tensor, value: Tensor) -> Tensor:
    """Copy the message's rows out of a shard's key and value."""
    b, _, _, d = key.shape
    shapes = block_shapes(message, classes, b, d)
    flat = key.new_empty(flat_size(shapes))
    for i, (to_key, to_value) in enumerate(views(flat, shapes)):
        rows, heads = row_index(message, i, key.device), head_index(classes[i], key.device)
        to_key.copy_(key[:, rows[:, None], heads])
        to_value.copy_(value[:, rows[:, None], heads])
    return flat


def add_back(
    message: Message,
    classes: Sequence[KeyClass],
    flat: Tensor,
    dkey: Tensor,
    dvalue: Tensor,
) -> None:
    """Add gradients of a message's rows, packed alike, to the shard's own."""
    b, _, _, d = dkey.shape
    shapes = block_shapes(message, classes, b, d)
    for i, (from_key, from_value) in enumerate(views(flat, shapes)):
        rows, heads = row_index(message, i, dkey.device), head_index(classes[i], dkey.device)
        dkey[:, rows[:, None], heads] += from_key
        dvalue[:, rows[:, None], heads] += from_value


def pack_mask(message: Message, key_mask: Tensor) -> Tensor:
    """The key mask of the message's rows, one byte a row and class."""
    device = key_mask.device
    return torch.cat(
        [
            key_mask[:, row_index(message, i, device)].to(torch.uint8).flatten()
            for i in range(len(message.rows))
        ]
    )


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
    masks: list[Tensor | None] = [None] * len(classes)
    if flat_mask is not None:
        sizes = [batch * len(rows) for rows in message.rows]
        masks = [m.view(batch, -1) for m in torch.split(flat_mask.view(torch.bool), sizes)]
    blocks = views(flat, block_shapes(message, classes, batch, head_dim))
    return [KeyPart(k, v, mask) for (k, v), mask in zip(blocks, masks, strict=True)]
