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

from ..comm import Workspace
from ..kernels.options import KeyPart
from ..schedule import Gathered, KeyClass, Message
from ..typing import IntArray
from .indexing import index_tensor

Shape = tuple[int, int, int, int]


def block_shapes(
    message: Message | Gathered, classes: Sequence[KeyClass], batch: int, head_dim: int
) -> list[Shape]:
    """(b, rows, heads, d) of each class's block."""
    return [
        (batch, len(rows), len(key_class.heads), head_dim)
        for rows, key_class in zip(message.positions, classes, strict=True)
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


def places_of(message: Message, classes: Sequence[KeyClass], heads: int) -> IntArray:
    """`row * heads + head` in the sender's storage of everything in a message, in its order."""
    return np.concatenate(
        [
            (rows[:, None] * heads + np.asarray(key_class.heads)).reshape(-1)
            for rows, key_class in zip(message.rows, classes, strict=True)
        ]
    )


@lru_cache(maxsize=1024)
def _places(
    message: Message, classes: tuple[KeyClass, ...], heads: int, device: torch.device
) -> Tensor:
    """`places_of` on a device.

    In 32 bits where these hold it: a plan keeps as much for each of its messages.
    """
    places = places_of(message, classes, heads)
    if not len(places) or places.max() <= np.iinfo(np.int32).max:
        places = places.astype(np.int32)
    return index_tensor(places, device)


def head_index(key_class: KeyClass, device: torch.device) -> Tensor:
    """The class's key/value heads, as an index tensor."""
    return torch.tensor(key_class.heads, device=device)


def pack(
    message: Message,
    classes: tuple[KeyClass, ...],
    key: Tensor,
    value: Tensor,
    into: Tensor,
) -> Tensor:
    """Copy the message's rows out of a shard's key and value into a flat buffer."""
    b, _, heads, d = key.shape
    at = _places(message, classes, heads, key.device)
    packed = into.view(2, b, len(at), d)
    for tensor, out in zip((key, value), packed, strict=True):
        if tensor.stride(1) == heads * tensor.stride(2):
            torch.index_select(tensor.flatten(1, 2), 1, at, out=out)
        else:
            places = [None, (at // heads).long(), (at % heads).long()]
            torch.ops.aten.index.Tensor_out(tensor, places, out=out)
    return into


def add_back(
    message: Message,
    classes: tuple[KeyClass, ...],
    flat: Tensor,
    dkey: Tensor,
    dvalue: Tensor,
) -> None:
    """Add gradients of a message's rows, packed alike, to the shard's own, which are contiguous."""
    b, _, heads, d = dkey.shape
    at = _places(message, classes, heads, dkey.device)
    # No row and head occurs twice, so the sums do not depend on an order.
    for tensor, packed in zip((dkey, dvalue), flat.view(2, b, len(at), d), strict=True):
        tensor.view(b, -1, d).index_add_(1, at, packed)


@lru_cache(maxsize=1024)
def _mask_rows(message: Message, device: torch.device) -> Tensor:
    return index_tensor(np.concatenate(message.rows), device)


def pack_mask(message: Message, key_mask: Tensor, workspace: Workspace) -> Tensor:
    """The key mask of the message's rows, one byte a row and class: (b, rows of all classes)."""
    at = _mask_rows(message, key_mask.device)
    flat = workspace.empty(mask_size(message, len(key_mask)), torch.uint8, key_mask.device)
    torch.index_select(key_mask.view(torch.uint8), 1, at, out=flat.view(len(key_mask), -1))
    return flat


def mask_size(message: Message, batch: int) -> int:
    """Bytes of a packed mask."""
    return batch * sum(len(rows) for rows in message.rows)


def unpack(
    message: Message | Gathered,
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
        ends = list(accumulate(len(rows) for rows in message.positions))
        masks = [
            whole[:, end - len(rows) : end]
            for end, rows in zip(ends, message.positions, strict=True)
        ]
    return [KeyPart(k, v, mask) for (k, v), mask in zip(blocks, masks, strict=True)]


@lru_cache(maxsize=1024)
def _gathered_places(gathered: Gathered, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(index_tensor(places, device) for places in gathered.places)


@lru_cache(maxsize=1024)
def _gathered_rows(gathered: Gathered, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(index_tensor(places, device) for places in gathered.row_places)


def join(
    gathered: Gathered, flats: Sequence[Tensor], batch: int, head_dim: int, workspace: Workspace
) -> Tensor:
    """Packed messages as one buffer of their rows in the gathered order."""
    places = _gathered_places(gathered, flats[0].device)
    size = sum(flat.numel() for flat in flats)
    joined = workspace.empty(size, flats[0].dtype, flats[0].device)
    rows = joined.view(2, batch, -1, head_dim)
    for flat, at in zip(flats, places, strict=True):
        rows.index_copy_(2, at, flat.view(2, batch, -1, head_dim))
    return joined


def join_masks(
    gathered: Gathered, flats: Sequence[Tensor], batch: int, workspace: Workspace
) -> Tensor:
    """Packed masks likewise."""
    places = _gathered_rows(gathered, flats[0].device)
    joined = workspace.empty(sum(x.numel() for x in flats), torch.uint8, flats[0].device)
    rows = joined.view(batch, -1)
    for flat, at in zip(flats, places, strict=True):
        rows.index_copy_(1, at, flat.view(batch, -1))
    return joined


def part_ways(
    gathered: Gathered, joined: Tensor, batch: int, head_dim: int, workspace: Workspace
) -> list[Tensor]:
    """The inverse of `join`: a part of one buffer for each message."""
    places = _gathered_places(gathered, joined.device)
    whole = workspace.empty(joined.numel(), joined.dtype, joined.device)
    parts = whole.split([2 * batch * len(at) * head_dim for at in places])
    rows = joined.view(2, batch, -1, head_dim)
    for at, part in zip(places, parts, strict=True):
        torch.index_select(rows, 2, at, out=part.view(2, batch, len(at), head_dim))
    return list(parts)
