"""The functions of `merge` on CUDA: one launch for out and lse, one for each gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from ..triton.merge import FIELDS, merge_kernel, spread_kernel, sum_kernel
from .calls import Library, layout
from .merge import Operands, Partial
from .plan import Call
from .views import view

# Elements of a program's tile: sums have fewer of a thread's registers to fill than the merge.
_TILE, _SUM_TILE = 2048, 4096
# Positions of a program lie at most so far apart; farther ones share no memory lines.
_MOST_STRIDE = 64
# Longer than any piece; it stands for every length that a piece does not reach, so that one
# compiled kernel serves them all.
_ENDLESS = 1 << 30
Strides = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False, slots=True)
class _Table:
    """Where the calls' rows stand, and what a kernel is specialized for."""

    entries: Tensor
    per_branch: tuple[int, ...]
    constants: dict[str, Any]


@lru_cache(maxsize=256)
def _table(
    calls: tuple[Call, ...],
    strides: Strides,
    lse_strides: Strides,
    heads: int,
    head_dim: int,
    rows: int,
    device: torch.device,
    *,
    key: bool,
) -> _Table:
    """The table that `triton.merge` describes.

    Args:
        calls: ordered by branch.
        strides: of each call's compact tensor.
        lse_strides: of each call's lse, or of anything.
        heads: query heads, or key/value heads.
        head_dim: d.
        rows: of the piece.
        device: where the table goes.
        key: the heads are key/value heads.
    """
    branches = sorted({call.branch for call in calls})
    members = [[i for i, call in enumerate(calls) if call.branch == b] for b in branches]
    found: dict[tuple[int, int], dict[tuple[int, int], list[list[int]]]] = {}
    for number, call in enumerate(calls):
        numbers, shift = (call.key, call.key_step) if key else (call.query, call.query_step)
        branch, last = branches.index(call.branch), int(call.begin > 0)
        for group in range(call.groups):
            offset = call.offset + group * call.offset_step
            for x, head in enumerate(numbers.asarray().tolist()):
                at_batch, at_head = (0, group) if call.groups_are_heads else (group, x)
                fields = [number, offset]
                for by_batch, by_head, by_row, *_ in (strides[number], lse_strides[number]):
                    fields += [at_batch * by_batch + at_head * by_head, by_batch, by_row]
                of_head = found.setdefault((branch, head + group * shift), {})
                of_head.setdefault((offset, last), []).append(fields)
    counts = [0] * len(branches)
    for (branch, _), of_head in found.items():
        full = sum(len(entries) for (_, last), entries in of_head.items() if not last)
        counts[branch] = max(counts[branch], full)
    table = np.full((len(branches), heads, max(counts), 2, FIELDS), -1, dtype=np.int64)
    for (branch, head), of_head in found.items():
        at = 0
        for offset in sorted({offset for offset, _ in of_head}):
            for last in (0, 1):
                for i, fields in enumerate(of_head.get((offset, last), [])):
                    table[branch, head, at + i, last] = fields
            at += len(of_head[offset, 0])
    unit = 8 if head_dim % 8 == 0 else 1
    table[..., 2:5] //= unit
    first = [calls[of_branch[0]] for of_branch in members]
    constants = {
        "SEGMENTS": tuple(c.segment if c.segment < rows else _ENDLESS for c in first),
        "RATES": tuple(c.rate for c in first),
        "RAGGED": tuple(any(calls[i].begin for i in of_branch) for of_branch in members),
        "ENDS": (0, *(of_branch[-1] + 1 for of_branch in members)),
        "BRANCHES": len(branches),
        "MOST": max(counts),
        "UNIT": unit,
        "HEAD": head_dim,
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
    }
    return _Table(torch.from_numpy(table.astype(np.int32)).to(device), tuple(counts), constants)


def _launch(
    kernel: Any, table: _Table, tensor: Tensor, tile: int, *arguments: Any, **own: Any
) -> None:
    """Run a kernel over the rows and heads of `tensor`."""
    b, rows, heads = tensor.shape[:3]
    block = max(1, tile // table.constants["BLOCK_D"])
    span = block * own.get("STRIDE", 1)
    grid = triton.cdiv(rows, span) * (span // block) * heads, b
    kernel[grid](*arguments, **own, **table.constants, BLOCK_P=block, num_warps=4)


def _stride(table: _Table, tensor: Tensor, tile: int) -> int:
    """How far apart a program's positions lie, so that a branch selects all of them or none."""
    stride = math.lcm(*table.constants["RATES"])
    span = max(1, tile // table.constants["BLOCK_D"]) * stride
    fits = span * tensor.shape[2] * tensor.shape[3] < 1 << 31
    return stride if stride <= _MOST_STRIDE and fits else 1


def _strides(tensors: list[Tensor]) -> Strides:
    return tuple(x.stride() for x in tensors)


def merge(partials: list[Partial], out: Tensor, lse: Tensor) -> None:
    """See `merge.merge`."""
    if not partials:
        out.zero_()
        lse.fill_(-torch.inf)
        return
    calls, outs, lses = (list(x) for x in zip(*partials, strict=True))
    _, rows, heads, d = out.shape
    table = _table(
        tuple(calls), _strides(outs), _strides(lses), heads, d, rows, out.device, key=False
    )
    pointers = out, lse, table.entries, tuple(outs), tuple(lses)
    numbers = rows, heads, out.stride(0), lse.stride(0)
    stride = _stride(table, out, _TILE)
    _launch(merge_kernel, table, out, _TILE, *pointers, *numbers, STRIDE=stride)


def gather_add(partials: list[tuple[Call, Tensor]], total: Tensor, *, key: bool) -> None:
    """See `merge.gather_add`."""
    if not partials:
        total.zero_()
        return
    # Several terms have shares of the same calls; the table wants the calls of a branch together.
    partials = sorted(partials, key=lambda pair: pair[0].branch)
    calls, shares = (list(x) for x in zip(*partials, strict=True))
    _, rows, heads, d = total.shape
    strides = _strides(shares)
    table = _table(tuple(calls), strides, strides, heads, d, rows, total.device, key=key)
    arguments = total, table.entries, tuple(shares), rows, heads, total.stride(0)
    stride = _stride(table, total, _SUM_TILE)
    own = {"ENTRIES": table.per_branch, "STRIDE": stride}
    _launch(sum_kernel, table, total, _SUM_TILE, *arguments, **own)


def spread(
    planned: list[tuple[Call, Library, Tensor]], dout: Tensor, out: Tensor, lse: Tensor
) -> list[Operands]:
    """See `merge.spread`; one launch, and views where rows lie as the library wants them."""
    if not planned:
        return []
    wanted = [layout(library, query.shape, query.stride()) for _, library, query in planned]
    lies_so = {call.branch: True for call, _, _ in planned}
    for (call, _, _), strides in zip(planned, wanted, strict=True):
        for tensor in (dout, out):
            lies_so[call.branch] &= _same(view(tensor, call), strides)
    found = []
    for (call, _, query), strides in zip(planned, wanted, strict=True):
        if lies_so[call.branch]:
            pair = view(dout, call), view(out, call)
        else:
            pair = (
                query.new_empty_strided(query.shape, strides),
                query.new_empty_strided(query.shape, strides),
            )
        found.append((*pair, lse.new_empty(query.shape[:3])))
    calls = tuple(call for call, _, _ in planned)
    douts, outs, lses = (list(x) for x in zip(*found, strict=True))
    _, rows, heads, d = out.shape
    table = _table(calls, _strides(douts), _strides(lses), heads, d, rows, out.device, key=False)
    pointers = dout, out, lse, table.entries, tuple(douts), tuple(outs), tuple(lses)
    numbers = rows, heads, *dout.stride()[:3], out.stride(0), lse.stride(0)
    copies = tuple(not lies_so[branch] for branch in sorted(lies_so))
    _launch(spread_kernel, table, out, _TILE, *pointers, *numbers, COPIES=copies)
    return found


def _same(tensor: Tensor, strides: tuple[int, ...]) -> bool:
    """Whether a tensor has these strides, dimensions of size 1 apart."""
    pairs = zip(tensor.shape, tensor.stride(), strides, strict=True)
    return all(a == b or size == 1 for size, a, b in pairs)
