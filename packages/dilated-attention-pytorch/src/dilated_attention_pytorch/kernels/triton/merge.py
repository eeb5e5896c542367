"""Joining the compact partial results of several attention calls, and laying rows out for them.

A program has one head and `BLOCK_P` positions of a piece of `rows` rows. Those that only read what
calls left take positions `STRIDE` apart: where the dilation rates divide it, and segments hold a
program's positions, a branch selects all of them or none, so what it does not select costs nothing,
and its rows step evenly. For each branch a table says where a position's row stands in the calls'
tensors: entry [branch, head, i, last] holds (tensor, offset, base, batch stride, row stride, lse
base, lse batch stride, lse row stride), the first base and strides in units of `UNIT` elements, so
that 32 bits hold every place. `last` is 1 for the shorter last segment. A head has several entries
i where calls with other offsets share it as key/value head.

Branch i has calls ENDS[i] to ENDS[i + 1], segments of SEGMENTS[i] rows, the last one shorter where
RAGGED[i], dilation RATES[i], and up to ENTRIES[i] entries of MOST in the table.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

# Integers in an entry of the table.
FIELDS = 8
_FIELDS: tl.constexpr = tl.constexpr(FIELDS)
_LOG2_E: tl.constexpr = tl.constexpr(math.log2(math.e))


@triton.jit
def _pick(tensors, number, FIRST: tl.constexpr, END: tl.constexpr):
    """`tensors[number]`, FIRST <= number < END."""
    chosen = tensors[FIRST]
    for other in tl.static_range(FIRST + 1, END):
        chosen = tl.where(number == other, tensors[other], chosen)
    return chosen


@triton.jit
def _locate(positions, rows, entry, SEGMENT: tl.constexpr, RATE: tl.constexpr):
    """(full segments, segment, row number in it, whether the entry's offset selects the row)."""
    segment = positions // SEGMENT
    place = positions - segment * SEGMENT
    number = place // RATE
    selected = (positions < rows) & (place - number * RATE == tl.load(entry + 1))
    return tl.maximum(rows // SEGMENT, 1), segment, number, selected


@triton.jit
def _pointers(
    tensors,
    entry,
    batch,
    segments,
    segment,
    number,
    FIRST: tl.constexpr,
    END: tl.constexpr,
    RAGGED: tl.constexpr,
    FIELD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Pointers to row `number` of a segment; FIELD is that of the base."""
    at = tl.load(entry + FIELD) + (batch * segments + segment) * tl.load(entry + FIELD + 1)
    at += number * tl.load(entry + FIELD + 2)
    chosen = _pick(tensors, tl.load(entry), FIRST, END)
    if RAGGED:
        last = segment == segments
        short = entry + _FIELDS
        at_short = tl.load(short + FIELD) + batch * tl.load(short + FIELD + 1)
        at_short += number * tl.load(short + FIELD + 2)
        at = tl.where(last, at_short, at)
        chosen = tl.where(last, _pick(tensors, tl.load(short), FIRST, END), chosen)
    return chosen + at.to(tl.int64) * UNIT


@triton.jit
def _find(
    first, steps, inside, offset,
    SEGMENT: tl.constexpr, RATE: tl.constexpr, STRIDE: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """(whether any row may be selected, segment, number of each row in it, selected).

    Of rows `first + STRIDE * steps`, which span SPAN; those outside the piece are not selected.
    """
    ENDLESS: tl.constexpr = SEGMENT >= 1 << 30
    ALIKE: tl.constexpr = STRIDE % RATE == 0 and (ENDLESS or SEGMENT % RATE == 0)
    if ALIKE and (ENDLESS or SEGMENT % SPAN == 0):
        segment = first // SEGMENT
        place = first - segment * SEGMENT
        start = place // RATE
        some = place - start * RATE == offset
        number = start + steps * (STRIDE // RATE)
        selected = inside
    else:
        positions = first + steps * STRIDE
        segment = positions // SEGMENT
        place = positions - segment * SEGMENT
        number = place // RATE
        if ALIKE:
            some = first % RATE == offset
            selected = inside
        else:
            some = offset >= 0
            if STRIDE % RATE == 0:
                # Within one segment all are selected or none here too.
                begin = first // SEGMENT
                several = begin != (first + (SPAN - STRIDE)) // SEGMENT
                some = some & (several | ((first - begin * SEGMENT) % RATE == offset))
            selected = inside & (place - number * RATE == offset)
    return some, segment, number, selected


@triton.jit
def _base(
    tensors, entry, batch, segments, segment,
    FIRST: tl.constexpr, END: tl.constexpr, RAGGED: tl.constexpr, FIELD: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """(pointer to a segment's first row, units from row to row); FIELD is that of the base."""
    at = tl.load(entry + FIELD) + (batch * segments + segment) * tl.load(entry + FIELD + 1)
    step = tl.load(entry + FIELD + 2)
    chosen = _pick(tensors, tl.load(entry), FIRST, END)
    if RAGGED:
        last = segment == segments
        short = entry + _FIELDS
        at_short = tl.load(short + FIELD) + batch * tl.load(short + FIELD + 1)
        at = tl.where(last, at_short, at)
        step = tl.where(last, tl.load(short + FIELD + 2), step)
        chosen = tl.where(last, _pick(tensors, tl.load(short), FIRST, END), chosen)
    return chosen + at.to(tl.int64) * UNIT, step


@triton.jit
def _load_rows(
    tensors, entry, batch, rows, segment, number, selected, columns,
    SEGMENT: tl.constexpr, FIRST: tl.constexpr, END: tl.constexpr, RAGGED: tl.constexpr,
    HEAD: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """Selected rows of a branch's tensors, 0 for others."""
    segments = tl.maximum(rows // SEGMENT, 1)
    base, step = _base(tensors, entry, batch, segments, segment, FIRST, END, RAGGED, 2, UNIT)
    at = base + (number * step).to(tl.int64) * UNIT
    known = selected[:, None] & (columns < HEAD)[None, :]
    return tl.load(at[:, None] + columns[None, :], mask=known, other=0.0)


@triton.jit
def _load_lse(
    lses, entry, batch, rows, segment, number, selected,
    SEGMENT: tl.constexpr, FIRST: tl.constexpr, END: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """lse of selected rows, -inf for others."""
    segments = tl.maximum(rows // SEGMENT, 1)
    base, step = _base(lses, entry, batch, segments, segment, FIRST, END, RAGGED, 5, 1)
    return tl.load(base + number * step, mask=selected, other=float("-inf"))


@triton.jit
def _first_row(tile, BLOCK_P: tl.constexpr, STRIDE: tl.constexpr):
    """Of a program: rows of the same span side by side."""
    return tile // STRIDE * (BLOCK_P * STRIDE) + tile % STRIDE


@triton.jit
def merge_kernel(
    out_ptr, lse_ptr, table_ptr, outs, lses, rows, heads, out_batch, lse_batch,
    SEGMENTS: tl.constexpr, RATES: tl.constexpr, RAGGED: tl.constexpr, ENDS: tl.constexpr,
    BRANCHES: tl.constexpr, MOST: tl.constexpr, UNIT: tl.constexpr, HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """lse = logaddexp_i lse_i, out = sum_i exp(lse_i - lse) out_i; -inf and 0 without a call.

    Rows of rate 1 are all selected, so they are asked for before any lse is known.
    """
    head = tl.program_id(0) % heads
    first = _first_row(tl.program_id(0) // heads, BLOCK_P, STRIDE)
    steps = tl.arange(0, BLOCK_P)
    inside = steps * STRIDE < rows - first
    batch = tl.program_id(1)
    columns = tl.arange(0, BLOCK_D)
    maximum = tl.full([BLOCK_P], float("-inf"), tl.float32)
    parts, used, early = (), (), ()
    for i in tl.static_range(BRANCHES):
        entry = table_ptr + (i * heads + head) * (MOST * 2 * _FIELDS)
        some, segment, number, selected = _find(
            first, steps, inside, tl.load(entry + 1), SEGMENTS[i], RATES[i], STRIDE,
            BLOCK_P * STRIDE,
        )  # fmt: skip
        used += (some,)
        part = tl.full([BLOCK_P], float("-inf"), tl.float32)
        if RATES[i] == 1:
            part = _load_lse(
                lses, entry, batch, rows, segment, number, selected & some, SEGMENTS[i], ENDS[i],
                ENDS[i + 1], RAGGED[i],
            )  # fmt: skip
            early += (
                _load_rows(
                    outs, entry, batch, rows, segment, number, selected & some, columns,
                    SEGMENTS[i], ENDS[i], ENDS[i + 1], RAGGED[i], HEAD, UNIT,
                ),
            )  # fmt: skip
        else:
            if some:
                part = _load_lse(
                    lses, entry, batch, rows, segment, number, selected, SEGMENTS[i], ENDS[i],
                    ENDS[i + 1], RAGGED[i],
                )  # fmt: skip
            early += (0,)
        parts += (part,)
        maximum = tl.maximum(maximum, part)
    pivot2 = tl.where(maximum == float("-inf"), 0.0, maximum) * _LOG2_E
    total = tl.zeros([BLOCK_P], tl.float32)
    out = tl.zeros([BLOCK_P, BLOCK_D], tl.float32)
    for i in tl.static_range(BRANCHES):
        weight = tl.exp2(parts[i] * _LOG2_E - pivot2)
        total += weight
        if RATES[i] == 1:
            out += weight[:, None] * early[i].to(tl.float32)
        else:
            if used[i]:
                of_branch = table_ptr + (i * heads + head) * (MOST * 2 * _FIELDS)
                _, at_segment, at_number, held = _find(
                    first, steps, inside, tl.load(of_branch + 1), SEGMENTS[i], RATES[i], STRIDE,
                    BLOCK_P * STRIDE,
                )  # fmt: skip
                value = _load_rows(
                    outs, of_branch, batch, rows, at_segment, at_number, held, columns,
                    SEGMENTS[i], ENDS[i], ENDS[i + 1], RAGGED[i], HEAD, UNIT,
                )  # fmt: skip
                out += weight[:, None] * value.to(tl.float32)
    total = tl.where(total == 0, 1.0, total)
    row = first.to(tl.int64) * heads + head
    at = lse_ptr + batch.to(tl.int64) * lse_batch + row
    tl.store(at + steps * (STRIDE * heads), maximum + tl.log(total), mask=inside)
    at = out_ptr + batch.to(tl.int64) * out_batch + row * HEAD + steps * (STRIDE * heads * HEAD)
    known = inside[:, None] & (columns < HEAD)[None, :]
    out = (out * (1.0 / total)[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(at[:, None] + columns[None, :], out, mask=known)


@triton.jit
def sum_kernel(
    total_ptr, table_ptr, shares, rows, heads, total_batch,
    SEGMENTS: tl.constexpr, RATES: tl.constexpr, RAGGED: tl.constexpr, ENDS: tl.constexpr,
    ENTRIES: tl.constexpr, BRANCHES: tl.constexpr, MOST: tl.constexpr, UNIT: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """A gradient: the sum of its shares in float32, 0 without a call."""
    head = tl.program_id(0) % heads
    first = _first_row(tl.program_id(0) // heads, BLOCK_P, STRIDE)
    steps = tl.arange(0, BLOCK_P)
    inside = steps * STRIDE < rows - first
    batch = tl.program_id(1)
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_P, BLOCK_D], tl.float32)
    for i in tl.static_range(BRANCHES):
        for j in tl.static_range(MOST):
            if j < ENTRIES[i]:
                entry = table_ptr + ((i * heads + head) * MOST + j) * (2 * _FIELDS)
                some, segment, number, selected = _find(
                    first, steps, inside, tl.load(entry + 1), SEGMENTS[i], RATES[i], STRIDE,
                    BLOCK_P * STRIDE,
                )  # fmt: skip
                if some:
                    values = _load_rows(
                        shares, entry, batch, rows, segment, number, selected, columns,
                        SEGMENTS[i], ENDS[i], ENDS[i + 1], RAGGED[i], HEAD, UNIT,
                    )  # fmt: skip
                    total += values.to(tl.float32)
    row = first.to(tl.int64) * heads + head
    at = total_ptr + batch.to(tl.int64) * total_batch + row * HEAD
    at += steps * (STRIDE * heads * HEAD)
    known = inside[:, None] & (columns < HEAD)[None, :]
    tl.store(at[:, None] + columns[None, :], total.to(total_ptr.dtype.element_ty), mask=known)


@triton.jit
def spread_kernel(
    dout_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    douts,
    outs,
    lses,
    rows,
    heads,
    dout_batch,
    dout_row,
    dout_head,
    out_batch,
    lse_batch,
    COPIES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    RATES: tl.constexpr,
    RAGGED: tl.constexpr,
    ENDS: tl.constexpr,
    BRANCHES: tl.constexpr,
    MOST: tl.constexpr,
    UNIT: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Read dout, out and lse once and write the calls' rows of them; dout and out if COPIES[i]."""
    head = tl.program_id(0) % heads
    positions = tl.program_id(0) // heads * BLOCK_P + tl.arange(0, BLOCK_P)
    batch = tl.program_id(1)
    columns = tl.arange(0, BLOCK_D)
    inside = positions < rows
    known = inside[:, None] & (columns < HEAD)[None, :]
    wide = positions.to(tl.int64)
    row = wide * heads + head
    lse = tl.load(lse_ptr + batch.to(tl.int64) * lse_batch + row, mask=inside, other=0.0)
    at = out_ptr + batch.to(tl.int64) * out_batch + row[:, None] * HEAD + columns[None, :]
    out = tl.load(at, mask=known, other=0.0)
    at = (
        dout_ptr
        + batch.to(tl.int64) * dout_batch
        + head.to(tl.int64) * dout_head
        + wide[:, None] * dout_row
    )
    dout = tl.load(at + columns[None, :], mask=known, other=0.0)
    for i in tl.static_range(BRANCHES):
        entry = table_ptr + (i * heads + head) * (MOST * 2 * _FIELDS)
        segments, segment, number, selected = _locate(positions, rows, entry, SEGMENTS[i], RATES[i])
        pointers = _pointers(
            lses, entry, batch, segments, segment, number, ENDS[i], ENDS[i + 1], RAGGED[i], 5, 1
        )
        tl.store(pointers, lse, mask=selected)
        if COPIES[i]:
            chosen = selected[:, None] & (columns < HEAD)[None, :]
            pointers = _pointers(
                douts,
                entry,
                batch,
                segments,
                segment,
                number,
                ENDS[i],
                ENDS[i + 1],
                RAGGED[i],
                2,
                UNIT,
            )
            tl.store(pointers[:, None] + columns[None, :], dout, mask=chosen)
            pointers = _pointers(
                outs,
                entry,
                batch,
                segments,
                segment,
                number,
                ENDS[i],
                ENDS[i + 1],
                RAGGED[i],
                2,
                UNIT,
            )
            tl.store(pointers[:, None] + columns[None, :], out, mask=chosen)
