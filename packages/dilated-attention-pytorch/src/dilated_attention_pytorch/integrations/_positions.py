"""Whether the position ids of a Transformers model are those of one sequence."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

# The ids and the mask that were looked at last: all layers of a model are handed the same two, and
# the answer is read back from their device.
_last: tuple[weakref.ref[Tensor], int, weakref.ref[Tensor] | None] | None = None


def check_one_sequence(position_ids: Tensor, attended: Tensor | None) -> None:
    """Positions of neighbours that are both attended must differ by 1: else sequences are packed.

    Transformers looks for packed sequences only where it is given no cache. Ids of several
    dimensions, as for images, are not looked at, nor is anything while `torch.compile` traces.

    Args:
        position_ids: (b, m) int64, or (1, m), of the newest m rows.
        attended: (b, n) bool, True = attend; None where there is no padding.

    Raises:
        ValueError: packed sequences.
    """
    global _last
    if position_ids.dim() != 2 or torch.compiler.is_compiling():
        return
    version = -1 if position_ids.is_inference() else position_ids._version
    if _last is not None and version >= 0:
        ids, seen, mask = _last
        if (
            ids() is position_ids
            and seen == version
            and (mask is None if attended is None else mask is not None and mask() is attended)
        ):
            return
    jumps = position_ids.diff(dim=1) != 1
    if attended is not None:
        own = attended[:, -position_ids.shape[1] :]
        jumps = jumps & own[:, 1:] & own[:, :-1]
    if bool(jumps.any()):
        raise ValueError(
            "dilated attention is defined on one sequence in each row of the batch, and these "
            "position_ids do not count on by 1: they pack several. Put each sequence into a row of "
            "its own, with padding on the right"
        )
    mask = None if attended is None else weakref.ref(attended)
    _last = (weakref.ref(position_ids), version, mask)
