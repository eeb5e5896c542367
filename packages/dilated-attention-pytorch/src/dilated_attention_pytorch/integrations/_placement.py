"""Where the rows of a call lie in the whole sequence, and which of them are padding."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..functional.group import communicator

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that one attention layer was passed.

    Args:
        first: global position of the first of them.
        n: global length.
        ignored: (b, rows) bool, True = padding; None where no rank has any.
        lengths: for each sequence, how many rows of it each rank holds; None where padding lies
            elsewhere than at the end.
    """

    first: int
    n: int
    ignored: Tensor | None = None
    lengths: tuple[tuple[int, ...], ...] | None = None


class Placement:
    """What all layers of a model share: the ring, and the padding of the call that runs.

    Args:
        group: the ring; None for one device.
        layout: `replicated` or `sharded`, see `replace_dilated_attention`.

    Raises:
        ValueError: unknown layout, or a group without this process.
        TypeError: no group.
    """

    def __init__(
        self, group: ProcessGroup | DeviceMesh | None = None, layout: str = "replicated"
    ) -> None:
        if layout not in ("replicated", "sharded"):
            raise ValueError(f"layout must be 'replicated' or 'sharded', got {layout!r}")
        self.group = group
        self.layout = layout
        self.comm = None if group is None else communicator(group, None, simulate=False)
        self.padding: Tensor | None = None
        self._read: tuple[weakref.ref[Tensor], int, tuple[int, ...] | None] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Placement:
        """Another placement on the same ring, for a process group cannot be copied."""
        twin = Placement.__new__(Placement)
        vars(twin).update(vars(self) | {"padding": None, "_read": None})
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: a model on one device.

        Raises:
            TypeError: a ring.
        """
        if self.group is not None:
            raise TypeError(
                "a model on a ring cannot be pickled, because its process group belongs to this "
                "process; save model.state_dict(), build the model anew and replace its attention "
                "with the group of that time"
            )
        return vars(self) | {"padding": None, "_read": None}

    def rows(self, x: Tensor, mask: Tensor | None) -> Rows:
        """Place the rows of `x` (b, rows, …) with the mask that its layer was passed, if any.

        Every rank of a ring has to call it.

        Raises:
            ValueError: ranks with batches of different sizes, or a mask that does not fit.
            TypeError: a mask that is not bool.
        """
        ignored = mask if self.padding is None else self.padding
        if ignored is not None:
            _check_mask(ignored, x)
        lengths = None if ignored is None else self._lengths(ignored)
        b, rows = x.shape[:2]
        padded = ignored is not None and lengths != (rows,) * b
        if self.comm is None:
            if not padded:
                return Rows(0, rows)
            whole = None if lengths is None else tuple((length,) for length in lengths)
            return Rows(0, rows, ignored, whole)
        trailing = ignored is None or lengths is not None
        table = self.comm.gather_numbers([rows, b, padded, trailing])
        held, batches, paddeds, trailings = zip(*table, strict=True)
        if len(set(batches)) > 1:
            raise ValueError(f"every rank of the ring needs the same batch, got sizes {batches}")
        first, n = sum(held[: self.comm.rank]), sum(held)
        if not any(paddeds):
            return Rows(first, n)
        if ignored is None:
            ignored = torch.zeros((b, rows), dtype=torch.bool, device=x.device)
        if not all(trailings):
            return Rows(first, n, ignored)
        parts = self.comm.gather_numbers((rows,) * b if lengths is None else lengths)
        found = tuple(zip(*parts, strict=True))
        whole = found if all(_at_the_end(part, held) for part in found) else None
        return Rows(first, n, ignored, whole)

    def _lengths(self, mask: Tensor) -> tuple[int, ...] | None:
        """Rows before the trailing padding; None where there is other padding.

        A model passes one mask to all layers: it is read back from its device once.
        """
        version = -1 if mask.is_inference() else mask._version
        if self._read is not None and version >= 0:
            known, read_version, lengths = self._read
            if known() is mask and read_version == version:
                return lengths
        kept = (~mask).sum(1)
        trailing = (mask.to(kept.dtype).diff(dim=1) >= 0).all()
        *counts, is_trailing = [*kept.tolist(), bool(trailing)]
        lengths = tuple(counts) if is_trailing else None
        self._read = (weakref.ref(mask), version, lengths)
        return lengths


def _check_mask(mask: Tensor, x: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"key_padding_mask must be bool, True = ignore, got {mask.dtype}")
    if mask.shape != x.shape[:2]:
        raise ValueError(
            f"key_padding_mask must have shape (batch, rows) = {tuple(x.shape[:2])}, got "
            f"{tuple(mask.shape)}; a class token needs an entry, too"
        )


def _at_the_end(part: tuple[int, ...], held: tuple[int, ...]) -> bool:
    """Whether no rank holds a row of the sequence after one that holds padding."""
    filled = [own == rows for own, rows in zip(part, held, strict=True)]
    return all(
        before or own == 0 for (before, _), own in zip(pairwise(filled), part[1:], strict=True)
    )
