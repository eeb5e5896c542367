"""What a kernel is told, the keys that it is given, and what a backend must offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..schedule import AlignedTile, Problem, RunList
from .carry import Carry

if TYPE_CHECKING:
    from .tiles import TileBackend


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """Numbers that every tile needs.

    Args:
        problem: what is computed.
        scale: softmax scale.
        backend: which kernels compute a part of the keys.
        own: in a ring, kernels for a rank's own rows where these are a sequence of their own.
        tiles: in a ring, kernels that stream own and received rows past tiles of own ones.
        dropout_p: probability of dropping an entry of P.
        seed: 0-d int64 tensor on the inputs' device, None without dropout.
    """

    problem: Problem
    scale: float
    backend: PartBackend
    dropout_p: float = 0.0
    seed: Tensor | None = None
    own: WholeBackend | None = None
    tiles: TileBackend | None = None

    @property
    def per_branch(self) -> bool:
        """Whether each branch keeps a result of its own, as torchscale's modes need."""
        return self.problem.pattern.phantom_keys or self.problem.pattern.detach_mix

    @property
    def lanes(self) -> int:
        """Number of results kept apart."""
        return self.problem.num_branches if self.per_branch else 1

    def lane(self, branch: int) -> int:
        """Which result a branch adds to."""
        return branch if self.per_branch else 0


@dataclass(frozen=True, slots=True)
class KeyPart:
    """Keys and values of some rows and some key/value heads.

    Args:
        key: (b, rows, heads, d).
        value: (b, rows, heads, d).
        key_mask: (b, rows) bool, True = attend, or None.
    """

    key: Tensor
    value: Tensor
    key_mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class QuerySide:
    """What the backward of any part of the keys needs of the whole softmax.

    Args:
        query: (b, n, H, d), the rank's rows.
        dout: (b, n, H, d).
        lse: (lanes, b, n, H), global; +inf drops a lane's row.
        delta: (lanes, b, n, H), `<dout, out> - dlse` with the out that the lane's gradient needs.
        dquery: (b, n, H, d), float32 or float64, summed in place.
    """

    query: Tensor
    dout: Tensor
    lse: Tensor
    delta: Tensor
    dquery: Tensor


@dataclass(frozen=True, slots=True)
class Result:
    """What a forward returns.

    Args:
        out: (b, n, H, d) in the inputs' dtype.
        lse: (b, n, H), float32 or float64.
        lane_out: (lanes, b, n, H, d), None where branches share one.
        lane_lse: (lanes, b, n, H), None where branches share one.
    """

    out: Tensor
    lse: Tensor
    lane_out: Tensor | None = None
    lane_lse: Tensor | None = None


# (dk, dv) of a part, (b, rows, heads, d) both, float32 or float64.
KeyGradient = tuple[Tensor, Tensor]


class PartBackend(Protocol):
    """A module that computes attention of some of the keys at a time, as a ring needs it.

    They come as parts, one for each class of key/value heads, and each with runs of its own; all
    tensors of one kind lie in one piece of memory.
    """

    def forward(
        self,
        query: Tensor,
        parts: Sequence[KeyPart],
        runs: tuple[RunList, ...],
        carry: Carry,
        options: KernelOptions,
    ) -> None:
        """Add the keys of the parts to the carry of every query row that sees them."""
        ...

    def backward(
        self,
        side: QuerySide,
        parts: Sequence[KeyPart],
        runs: tuple[RunList, ...],
        gradients: Sequence[KeyGradient],
        options: KernelOptions,
    ) -> None:
        """Add the parts' share of the exact gradient to `side.dquery` and to `gradients`."""
        ...

    def finish(self, carry: Carry, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(out, lse) of a carry of one lane, out in `dtype`; the carry is used up."""
        ...

    def delta(self, dout: Tensor, result: Result, *, detached: bool) -> Tensor:
        """<dout, out>, (b, n, H); if detached of each lane's own out, (lanes, b, n, H).

        In float32, or float64 for float64 inputs. It need not hold for rows that see no key.
        """
        ...


class AlignedBackend(PartBackend, Protocol):
    """Kernels for parts whose results need not depend on how the rows are split.

    `BLOCK` is the side of their tiles, in rows.
    """

    BLOCK: int

    def forward_aligned(
        self,
        query: Tensor,
        part: KeyPart,
        tiles: Iterable[AlignedTile],
        carry: Carry,
        options: KernelOptions,
    ) -> None:
        """As `forward`, with results bitwise equal however the rows are split over ranks."""
        ...


class WholeBackend(Protocol):
    """A module that computes attention of a whole sequence on one device."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_mask: Tensor | None,
        options: KernelOptions,
        *,
        wide: bool = False,
    ) -> Result:
        """The result, with lse in float32; lanes where `options.per_branch`.

        With `wide` out is in float32 too, for other keys to be merged into it.
        """
        ...

    def backward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_mask: Tensor | None,
        dout: Tensor,
        dlse: Tensor | None,
        result: Result,
        options: KernelOptions,
        *,
        wide: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv); `delta = <dout, out> - dlse` is the backend's work.

        They are in the inputs' dtype, with `wide` in float32, for more to be added; `result` may be
        that of more keys than these.
        """
        ...
