"""Attention of one part of the keys in plain PyTorch: any device, any option; the reference.

Works tile by tile: the largest temporary is block x block x b x heads, whatever n is. Rows that
a query may not see never reach its results, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedule import AlignedTile, Rows, Run
from .carry import Carry, compute_dtype, put, take
from .options import KernelOptions, KeyGradient, KeyPart, QuerySide, Result
from .philox import dropout_factor

BLOCK = 256


@dataclass(slots=True)
class _Tile:
    """Operands of one tile, heads before rows: (b, h, queries, d) and (b, h, keys, d)."""

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor | None
    factor: Tensor | None

    def scores(self) -> Tensor:
        """s = scale * <q, k>, -inf where the query does not see the key."""
        scores = self.query @ self.key.transpose(-1, -2)
        if self.visible is None:
            return scores
        return scores.masked_fill(~self.visible, -torch.inf)


def _weighted(weights: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """`weights @ values`, where a non-finite value reaches only the rows that see it.

    A plain product computes 0 x NaN for a hidden key.
    """
    if visible is None or bool(torch.isfinite(values).all()):
        return weights @ values
    product = weights @ torch.where(torch.isfinite(values), values, 0.0)
    seen = visible.to(weights.dtype)
    for bad, mark in (
        (values.isnan(), torch.nan),
        (values == torch.inf, torch.inf),
        (values == -torch.inf, -torch.inf),
    ):
        product = product + torch.where(seen @ bad.to(weights.dtype) > 0, mark, 0.0)
    return product


def _tensor(rows: Rows, device: torch.device) -> Tensor:
    return torch.from_numpy(rows.asarray().copy()).to(device)


def _place(tensor: Tensor, rows: Rows, size: int) -> Tensor:
    """(b, h, rows, d) laid into (b, h, size, d) of zeros."""
    laid = tensor.new_zeros((*tensor.shape[:2], size, tensor.shape[3]))
    laid[:, :, _tensor(rows, tensor.device)] = tensor
    return laid


def _load(query: Tensor, part: KeyPart, run: Run, options: KernelOptions) -> _Tile:
    """Read the rows of a tile, masked keys as zeros, the scale folded into the query."""
    dtype, device = compute_dtype(query.dtype), query.device
    q = take(query, run.query, run.heads.query).to(dtype).transpose(1, 2) * options.scale
    k = take(part.key, run.key, run.heads.key).to(dtype).transpose(1, 2)
    v = take(part.value, run.key, run.heads.key).to(dtype).transpose(1, 2)
    visible = None
    if run.masked:
        visible = _tensor(run.query_x, device)[:, None] >= _tensor(run.key_x, device)
        visible = visible[None, None]
    if part.key_mask is not None:
        found = run.key.slice()
        rows = found if found is not None else _tensor(run.key, device)
        allowed = part.key_mask[:, rows][:, None, None, :]
        k, v = (torch.where(allowed.transpose(-1, -2), x, 0.0) for x in (k, v))
        visible = allowed if visible is None else visible & allowed
        visible = visible.expand(-1, -1, q.shape[2], -1)
    factor = None
    if options.dropout_p > 0:
        assert options.seed is not None
        rate = options.problem.pattern.branches[run.branch].dilation_rate
        factor = dropout_factor(
            seed=options.seed,
            dropout_p=options.dropout_p,
            batch=query.shape[0],
            num_heads=options.problem.num_heads,
            heads=_tensor(run.heads.query, device),
            branch=run.branch,
            positions=_tensor(run.query_x, device) * rate + (run.segment + run.offset),
            key_x=run.key_x.asarray(),
            dtype=dtype,
        )
    return _Tile(q, k, v, visible, factor)


def _fixed_shape(tile: _Tile, aligned: AlignedTile) -> _Tile:
    """The tile laid out in its fixed shape; places without a row are hidden from every query."""
    size, at_query, at_key = aligned.rows, aligned.query_place, aligned.key_place
    q = _place(tile.query, at_query, size)
    k, v = _place(tile.key, at_key, size), _place(tile.value, at_key, size)
    device = q.device
    rows, columns = _tensor(at_query, device)[:, None], _tensor(at_key, device)
    batch = 1 if tile.visible is None else tile.visible.shape[0]
    visible = torch.zeros((batch, 1, size, size), dtype=torch.bool, device=device)
    visible[:, :, rows, columns] = True if tile.visible is None else tile.visible
    factor = None
    if tile.factor is not None:
        factor = tile.factor.new_zeros((*tile.factor.shape[:2], size, size))
        factor[:, :, rows, columns] = tile.factor
    return _Tile(q, k, v, visible, factor)


def _softmax(tile: _Tile) -> tuple[Tensor, Tensor, Tensor]:
    """(maximum, sum, weighted values) of a tile, shaped (b, queries, h[, d])."""
    scores = tile.scores()
    maximum = scores.amax(-1)
    pivot = torch.where(maximum == -torch.inf, 0.0, maximum)
    weights = torch.exp(scores - pivot[..., None])
    total = weights.sum(-1)
    if tile.factor is not None:
        weights = weights * tile.factor
    weighted = _weighted(weights, tile.value, tile.visible)
    return maximum.transpose(1, 2), total.transpose(1, 2), weighted.transpose(1, 2)


def forward(
    query: Tensor,
    parts: Sequence[KeyPart],
    runs: Sequence[Iterable[Run]],
    carry: Carry,
    options: KernelOptions,
) -> None:
    """Add the keys of the parts to the carry of every query row that sees them.

    Args:
        query: (b, n, H, d), the rank's rows.
        parts: keys and values.
        runs: which rows meet which, for each part.
        carry: updated in place.
        options: scale, dropout.
    """
    for part, found in zip(parts, runs, strict=True):
        for run in found:
            for tile in run.tiles(BLOCK):
                result = _softmax(_load(query, part, tile, options))
                carry.update(options.lane(run.branch), tile.query, tile.heads.query, *result)


def forward_aligned(
    query: Tensor,
    part: KeyPart,
    tiles: Iterable[AlignedTile],
    carry: Carry,
    options: KernelOptions,
) -> None:
    """As `forward`, for tiles of fixed shape: bitwise equal however the rows are split."""
    for aligned in tiles:
        run = aligned.run
        tile = _fixed_shape(_load(query, part, run, options), aligned)
        places = _tensor(aligned.query_place, query.device)
        maximum, total, weighted = (x[:, places] for x in _softmax(tile))
        carry.update(options.lane(run.branch), run.query, run.heads.query, maximum, total, weighted)


def backward(
    side: QuerySide,
    parts: Sequence[KeyPart],
    runs: Sequence[Iterable[Run]],
    gradients: Sequence[KeyGradient],
    options: KernelOptions,
) -> None:
    """Add the parts' share of the exact gradient (semantics 3) to dquery, dkey and dvalue.

    With P = exp(s - lse): dS = P * (D * (dout v^T) - delta), dV = (P D)^T dout,
    dQ = scale dS k, dK = scale dS^T q.

    Args:
        side: query side; its dquery is summed in place.
        parts: keys and values.
        runs: which rows meet which, for each part.
        gradients: (dk, dv) of each part, (b, rows, heads, d), float32 or float64, summed in place.
        options: scale, dropout.
    """
    dtype = compute_dtype(side.query.dtype)
    for part, found, (dkey, dvalue) in zip(parts, runs, gradients, strict=True):
        for run in found:
            for piece in run.tiles(BLOCK):
                _backward_tile(side, part, piece, dkey, dvalue, options, dtype)


def _backward_tile(
    side: QuerySide,
    part: KeyPart,
    run: Run,
    dkey: Tensor,
    dvalue: Tensor,
    options: KernelOptions,
    dtype: torch.dtype,
) -> None:
    tile = _load(side.query, part, run, options)
    rows, heads, lane = run.query, run.heads.query, options.lane(run.branch)
    dout = take(side.dout, rows, heads).to(dtype).transpose(1, 2)
    lse, delta = (
        take(x[lane], rows, heads).transpose(1, 2)[..., None] for x in (side.lse, side.delta)
    )
    # A row that sees no key has lse = -inf; exp(-inf - 0) = 0 for its hidden keys.
    weights = torch.exp(tile.scores() - torch.where(lse == -torch.inf, 0.0, lse))
    if tile.visible is not None:
        # A row whose lse is NaN has NaN weights for hidden keys, too.
        weights = weights.masked_fill(~tile.visible, 0.0)
    seen = None if tile.visible is None else tile.visible.transpose(-1, -2)
    dweights = dout @ tile.value.transpose(-1, -2)
    dropped = weights
    if tile.factor is not None:
        dropped, dweights = weights * tile.factor, dweights * tile.factor
    dscores = weights * (dweights - delta)
    if tile.visible is not None:
        dscores = dscores.masked_fill(~tile.visible, 0.0)
    dq = _weighted(dscores, tile.key, tile.visible) * options.scale
    dk = _weighted(dscores.transpose(-1, -2), tile.query, seen)
    dv = _weighted(dropped.transpose(-1, -2), dout, seen)
    put(side.dquery, rows, heads, take(side.dquery, rows, heads) + dq.transpose(1, 2))
    for total, share in ((dkey, dk), (dvalue, dv)):
        _add_heads(total, run.key, run.heads.key, share.transpose(1, 2))


def _add_heads(total: Tensor, rows: Rows, heads: Rows, share: Tensor) -> None:
    """`total[:, rows, heads] += share`, where several query heads may share a key/value head."""
    if heads.slice() is not None:
        put(total, rows, heads, take(total, rows, heads) + share)
        return
    numbers = heads.asarray()
    for head in sorted(set(numbers.tolist())):
        members = _tensor(Rows.of((numbers == head).nonzero()[0]), share.device)
        one = Rows(head, 1, 1)
        added = share[:, :, members].sum(2, keepdim=True)
        put(total, rows, one, take(total, rows, one) + added)


def finish(carry: Carry, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(out, lse) of a carry of one lane, which is used up; out in `dtype`."""
    out, lse = carry.finish()
    return out[0].to(dtype), lse[0]


def delta(dout: Tensor, result: Result, *, detached: bool) -> Tensor:
    """<dout, out> of every row, (b, n, H); (lanes, b, n, H) if detached, of each lane's own out."""
    dtype = result.lse.dtype
    out = result.lane_out if detached and result.lane_out is not None else result.out
    return (dout.to(dtype) * out.to(dtype)).sum(-1)
