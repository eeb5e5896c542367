"""The strided views of a call's rows and heads; nothing is copied."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .plan import Call, Piece


def rows_of(tensor: Tensor, piece: Piece) -> Tensor:
    """The piece of a (b, n, ...) tensor."""
    return tensor[piece.first : piece.last, piece.begin : piece.end]


def view(tensor: Tensor, call: Call, *, key: bool = False) -> Tensor:
    """(batch * segments, heads, rows[, d]) of a piece of shape (b, n, H[, d]), as a view.

    Args:
        tensor: the piece; where several batch entries meet several segments, its batch stride is
            that of n rows.
        call: which rows and heads.
        key: the tensor has key/value heads.
    """
    shape, strides, offset = _geometry(call, tensor.shape, tensor.stride(), key)
    return torch.as_strided(tensor, shape, strides, tensor.storage_offset() + offset)


@lru_cache(maxsize=1 << 14)
def _geometry(
    call: Call, shape: tuple[int, ...], strides: tuple[int, ...], key: bool
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides and first element of `view`."""
    heads, shift = (call.key, call.key_step) if key else (call.query, call.query_step)
    by_batch, by_row, by_head, *by_feature = strides
    batch, entries = shape[0] * call.segments, len(heads)
    batch_stride = call.segment * by_row if call.segments > 1 else by_batch
    head_stride = heads.step * by_head
    group_stride = call.offset_step * by_row + shift * by_head
    if call.groups > 1 and call.groups_are_heads:
        entries, head_stride = call.groups, group_stride
    elif call.groups > 1:
        batch, batch_stride = call.groups, group_stride
    return (
        (batch, entries, call.rows, *shape[3:]),
        (batch_stride, head_stride, call.rate * by_row, *by_feature),
        (call.begin + call.offset) * by_row + heads.start * by_head,
    )
