"""The running softmax of query rows: maximum, sum and weighted values of all keys met so far."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedule import Rows


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 inputs, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _index(rows: Rows, device: torch.device) -> slice | Tensor:
    """A slice (a view) where the rows step evenly, else an index tensor (a gather)."""
    found = rows.slice()
    if found is not None:
        return found
    return torch.from_numpy(rows.asarray().copy()).to(device)


def take(tensor: Tensor, rows: Rows, heads: Rows) -> Tensor:
    """`tensor[:, rows, heads]` of a (b, n, h, ...) tensor, as a view where both step evenly."""
    device = tensor.device
    return tensor[:, _index(rows, device)][:, :, _index(heads, device)]


def put(tensor: Tensor, rows: Rows, heads: Rows, value: Tensor) -> None:
    """Write `tensor[:, rows, heads] = value`; no row or head may occur twice."""
    at, of = _index(rows, tensor.device), _index(heads, tensor.device)
    if isinstance(at, Tensor) and isinstance(of, Tensor):
        at = at[:, None]
    tensor[:, at, of] = value


class Carry:
    """Running (maximum, sum, weighted values) of every query row and head.

    With m the maximum of the scores met so far, `total = sum C exp(s - m)` and
    `weighted = sum C exp(s - m) v`, the result is `out = weighted / total` and
    `lse = m + log(total)`. It is kept in float32 (float64 for float64 inputs) from the first key
    to the last. `lanes` is 1, or the number of branches where each needs its own result.
    """

    def __init__(self, query: Tensor, lanes: int) -> None:
        b, n, h, d = query.shape
        dtype = compute_dtype(query.dtype)
        self.maximum = query.new_full((lanes, b, n, h), -torch.inf, dtype=dtype)
        self.total = query.new_zeros((lanes, b, n, h), dtype=dtype)
        self.weighted = query.new_zeros((lanes, b, n, h, d), dtype=dtype)

    @classmethod
    def resume(cls, out: Tensor, lse: Tensor) -> Carry:
        """The carry after keys whose finished (b, n, h, d) out and (b, n, h) lse are given.

        Both are taken over and changed in place.
        """
        carry = cls.__new__(cls)
        carry.maximum, carry.weighted = lse[None], out[None]
        carry.total = (carry.maximum != -torch.inf).to(lse.dtype)
        return carry

    def update(
        self, lane: int, rows: Rows, heads: Rows, maximum: Tensor, total: Tensor, weighted: Tensor
    ) -> None:
        """Add keys whose own (maximum, sum, weighted values) are given, shaped (b, rows, heads)."""
        before = take(self.maximum[lane], rows, heads)
        after = torch.maximum(before, maximum)
        # A row that has met no key keeps -inf; exp(-inf - 0) = 0 then, never exp(-inf + inf).
        pivot = torch.where(after == -torch.inf, 0.0, after)
        old, new = torch.exp(before - pivot), torch.exp(maximum - pivot)
        put(self.total[lane], rows, heads, take(self.total[lane], rows, heads) * old + total * new)
        put(
            self.weighted[lane],
            rows,
            heads,
            take(self.weighted[lane], rows, heads) * old[..., None] + weighted * new[..., None],
        )
        put(self.maximum[lane], rows, heads, after)

    def add_partial(self, lane: int, rows: Rows, heads: Rows, out: Tensor, lse: Tensor) -> None:
        """Add a finished partial (out, lse); one with lse = -inf has weight 0."""
        some = lse != -torch.inf
        self.update(
            lane, rows, heads, lse, some.to(lse.dtype), torch.where(some[..., None], out, 0)
        )

    def finish(self) -> tuple[Tensor, Tensor]:
        """(out, lse) of every lane, (lanes, b, n, h, d) and (lanes, b, n, h); the carry is used up.

        out is 0 and lse -inf where no key was met.
        """
        empty = self.total == 0
        lse = self.maximum + torch.log(torch.where(empty, 1.0, self.total))
        out = self.weighted.div_(torch.where(empty, 1.0, self.total)[..., None])
        return out, lse
