"""Kernels for some of the keys of a ring: they add to what earlier ones have left in memory.

Legend. A tile is up to BLOCK_M rows of one head that the same runs hold (`schedule/parts.py`). Its
entries name rows of the other side; a program walks them as `forward` and `backward` do. Forward
starts from the tile's running (maximum, sum, weighted values) and leaves the new ones; backward
adds to dq, or to dk and dv, in float32. One program owns a row, so there are no atomics and bits
repeat.
"""

# Device code has Triton's types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from .backward import walk_keys, walk_queries
from .forward import walk_softmax
from .tile import load_rows

# A segment's keys are numbered from its start, whatever its length.
_ENDLESS = tl.constexpr(2**31 - 1)


@triton.jit
def _own_rows(programs_ptr, tiles_ptr, BLOCK_M: tl.constexpr):
    """(own head, other, part, lane, first entry, last entry + 1, rows, positions, real ones)."""
    program = programs_ptr + 4 * tl.program_id(0).to(tl.int64)
    tile = tiles_ptr + 8 * tl.load(program + 2).to(tl.int64)
    row = tl.arange(0, BLOCK_M)
    place = (tl.load(tile) + row * tl.load(tile + 1)).to(tl.int64)
    positions = tl.load(tile + 3) + row * tl.load(tile + 4)
    return (
        tl.load(program).to(tl.int64),
        tl.load(program + 1).to(tl.int64),
        tl.load(program + 3).to(tl.int64),
        tl.load(tile + 5).to(tl.int64),
        tl.load(tile + 6),
        tl.load(tile + 7),
        place,
        positions,
        row < tl.load(tile + 2),
    )


@triton.jit
def _key_side(parts_ptr, part, batch, ALIGN: tl.constexpr):
    """(key offset, row stride, head stride, value's likewise, mask offset) of a part and batch.

    Of tensors that begin `offset` elements behind the first part's. ALIGN divides all but the last,
    which the compiler has to be told: it moves 16 bytes at a time then.
    """
    at = parts_ptr + 14 * part
    return (
        tl.multiple_of(tl.load(at) + batch * tl.load(at + 1), ALIGN),
        tl.multiple_of(tl.load(at + 2), ALIGN),
        tl.multiple_of(tl.load(at + 3), ALIGN),
        tl.multiple_of(tl.load(at + 4) + batch * tl.load(at + 5), ALIGN),
        tl.multiple_of(tl.load(at + 6), ALIGN),
        tl.multiple_of(tl.load(at + 7), ALIGN),
        tl.load(at + 8) + batch * tl.load(at + 9),
    )


@triton.jit
def _entry(entries_ptr, number):
    """(first row, row step, rows, full_begin, full_end, first position, step, segment, rate)."""
    entry = entries_ptr + 12 * number
    return (
        tl.load(entry),
        tl.load(entry + 1),
        tl.load(entry + 2),
        tl.load(entry + 3),
        tl.load(entry + 4),
        tl.load(entry + 5),
        tl.load(entry + 6),
        tl.load(entry + 7),
        tl.load(entry + 8),
    )


@triton.jit
def part_forward_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, maximum_ptr, total_ptr, weighted_ptr, seed_ptr,
    programs_ptr, tiles_ptr, entries_ptr, parts_ptr, threshold, kept_scale, log2_scale,
    query_batch, query_row, query_head, own_rows, heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Update (lanes, b, n, H) maximum (natural) and total, and (lanes, b, n, H, d) weighted."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, other, part, lane, begin, end, place, positions, valid = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    query_base = query_ptr + batch * query_batch + head * query_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    key_at, key_row, key_head, value_at, value_row, value_head, mask_at = _key_side(
        parts_ptr, part, batch, ALIGN
    )
    key_base = key_ptr + key_at + other * key_head
    value_base = value_ptr + value_at + other * value_head
    mask_base = mask_ptr + mask_at
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    sequence = batch * heads + head

    at = ((lane * batches + batch) * own_rows + place) * heads + head
    row_max = tl.load(maximum_ptr + at, mask=valid, other=float("-inf")) * 1.4426950408889634
    row_sum = tl.load(total_ptr + at, mask=valid, other=0.0)
    acc = load_rows(weighted_ptr + at * HEAD, columns, HEAD, BLOCK_D, valid)
    for number in range(begin, end):
        row, row_step, count, _full_begin, full_end, first, step, segment, rate = _entry(
            entries_ptr, number
        )
        branch = tl.load(entries_ptr + 12 * number + 9)
        acc, row_max, row_sum = walk_softmax(
            acc, row_max, row_sum, query, positions, key_base, value_base, mask_base, 0, full_end,
            count, row, row_step, first, step, rate, _ENDLESS, segment, branch, sequence, seed,
            threshold, kept_scale, key_row, value_row, log2_scale, columns, False, CAUSAL, False,
            KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
        acc, row_max, row_sum = walk_softmax(
            acc, row_max, row_sum, query, positions, key_base, value_base, mask_base, full_end,
            count, count, row, row_step, first, step, rate, _ENDLESS, segment, branch, sequence,
            seed, threshold, kept_scale, key_row, value_row, log2_scale, columns, True, CAUSAL,
            False, KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
    tl.store(maximum_ptr + at, row_max * 0.6931471805599453, mask=valid)
    tl.store(total_ptr + at, row_sum, mask=valid)
    written = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(weighted_ptr + at[:, None] * HEAD + columns[None, :], acc, mask=written)


@triton.jit
def part_dquery_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, dout_ptr, lse_ptr, delta_ptr, dquery_ptr, seed_ptr,
    programs_ptr, tiles_ptr, entries_ptr, parts_ptr, threshold, kept_scale, log2_scale, scale,
    query_batch, query_row, query_head, dout_batch, dout_row, dout_head, own_rows, heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, LANES: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Add to dq (b, n, H, d); lse in base 2 and delta are (lanes, b, H, n), contiguous."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, other, part, _lane, begin, end, place, positions, valid = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    query_base = query_ptr + batch * query_batch + head * query_head
    dout_base = dout_ptr + batch * dout_batch + head * dout_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    dout = load_rows(dout_base + place * dout_row, columns, HEAD, BLOCK_D, valid)
    key_at, key_row, key_head, value_at, value_row, value_head, mask_at = _key_side(
        parts_ptr, part, batch, ALIGN
    )
    key_base = key_ptr + key_at + other * key_head
    value_base = value_ptr + value_at + other * value_head
    mask_base = mask_ptr + mask_at
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    sequence = batch * heads + head

    statistics = (batch * heads + head) * own_rows + place
    lse2 = tl.load(lse_ptr + statistics, mask=valid, other=float("inf"))
    delta = tl.load(delta_ptr + statistics, mask=valid, other=0.0)
    dquery = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for number in range(begin, end):
        row, row_step, count, _full_begin, full_end, first, step, segment, rate = _entry(
            entries_ptr, number
        )
        branch = tl.load(entries_ptr + 12 * number + 9)
        if LANES:
            statistics = ((branch * batches + batch) * heads + head) * own_rows + place
            lse2 = tl.load(lse_ptr + statistics, mask=valid, other=float("inf"))
            delta = tl.load(delta_ptr + statistics, mask=valid, other=0.0)
        dquery = walk_keys(
            dquery, query, dout, lse2, delta, positions, key_base, value_base, mask_base, 0,
            full_end, count, row, row_step, first, step, rate, _ENDLESS, segment, branch, sequence,
            seed, threshold, kept_scale, key_row, value_row, log2_scale, columns, False, CAUSAL,
            False, KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
        dquery = walk_keys(
            dquery, query, dout, lse2, delta, positions, key_base, value_base, mask_base, full_end,
            count, count, row, row_step, first, step, rate, _ENDLESS, segment, branch, sequence,
            seed, threshold, kept_scale, key_row, value_row, log2_scale, columns, True, CAUSAL,
            False, KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
    at = dquery_ptr + ((batch * own_rows + place) * heads + head) * HEAD
    before = load_rows(at, columns, HEAD, BLOCK_D, valid)
    written = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(at[:, None] + columns[None, :], before + dquery * scale, mask=written)


@triton.jit
def part_dkey_dvalue_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, dout_ptr, lse_ptr, delta_ptr, dkey_ptr, dvalue_ptr,
    seed_ptr, programs_ptr, tiles_ptr, entries_ptr, parts_ptr, threshold, kept_scale,
    log2_scale, scale,
    query_batch, query_row, query_head, dout_batch, dout_row, dout_head, other_rows, heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, LANES: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Add to dk and dv (b, rows, heads, d) of the parts, over the query heads of the group."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, first_other, part, _lane, begin, end, place, positions, written = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    key_at, key_row, key_head, value_at, value_row, value_head, mask_at = _key_side(
        parts_ptr, part, batch, ALIGN
    )
    valid = written
    if KEY_MASK:
        valid = valid & (tl.load(mask_ptr + mask_at + place, mask=valid, other=0) != 0)
    key_base = key_ptr + key_at + head * key_head
    value_base = value_ptr + value_at + head * value_head
    key = load_rows(key_base + place * key_row, columns, HEAD, BLOCK_D, valid)
    value = load_rows(value_base + place * value_row, columns, HEAD, BLOCK_D, valid)
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)

    dkey = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    dvalue = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for number in range(begin, end):
        row, row_step, count, full_begin, full_end, first, step, segment, rate = _entry(
            entries_ptr, number
        )
        branch = tl.load(entries_ptr + 12 * number + 9)
        other = first_other + tl.load(entries_ptr + 12 * number + 10)
        query_base = query_ptr + batch * query_batch + other * query_head
        dout_base = dout_ptr + batch * dout_batch + other * dout_head
        statistics = (batch * heads + other) * other_rows
        if LANES:
            statistics += branch.to(tl.int64) * batches * heads * other_rows
        lse_base, delta_base = lse_ptr + statistics, delta_ptr + statistics
        sequence = batch * heads + other
        if CAUSAL:
            dkey, dvalue = walk_queries(
                dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
                0, full_begin, count, count, row, row_step, first, step, rate, _ENDLESS, segment,
                branch, sequence, seed, threshold, kept_scale, query_row, dout_row, log2_scale,
                columns, True, CAUSAL, False, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
        dkey, dvalue = walk_queries(
            dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
            full_begin, full_end, count, count, row, row_step, first, step, rate, _ENDLESS,
            segment, branch, sequence, seed, threshold, kept_scale, query_row, dout_row,
            log2_scale, columns, False, CAUSAL, False, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
        dkey, dvalue = walk_queries(
            dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
            full_end, count, count, count, row, row_step, first, step, rate, _ENDLESS, segment,
            branch, sequence, seed, threshold, kept_scale, query_row, dout_row, log2_scale,
            columns, True, CAUSAL, False, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
        )  # fmt: skip
    gradients = parts_ptr + 14 * part
    own_heads = tl.load(gradients + 12)
    at = batch * tl.load(gradients + 13) + (place * own_heads + head) * HEAD
    dkey_at = dkey_ptr + tl.load(gradients + 10) + at
    dvalue_at = dvalue_ptr + tl.load(gradients + 11) + at
    key_before = load_rows(dkey_at, columns, HEAD, BLOCK_D, valid)
    value_before = load_rows(dvalue_at, columns, HEAD, BLOCK_D, valid)
    inside = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(dkey_at[:, None] + columns[None, :], key_before + dkey * scale, mask=inside)
    tl.store(dvalue_at[:, None] + columns[None, :], value_before + dvalue, mask=inside)


@triton.jit
def finish_kernel(
    maximum_ptr, total_ptr, weighted_ptr, out_ptr, rows,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """out = weighted / total in its dtype, and lse in the place of maximum; (rows, d), (rows,)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    inside = valid[:, None] & (columns[None, :] < HEAD)
    at = row[:, None] * HEAD + columns[None, :]
    total = tl.load(total_ptr + row, mask=valid, other=0.0)
    total = tl.where(total == 0.0, 1.0, total)
    maximum = tl.load(maximum_ptr + row, mask=valid, other=0.0)
    out = tl.load(weighted_ptr + at, mask=inside, other=0.0) / total[:, None]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(maximum_ptr + row, maximum + tl.log(total), mask=valid)
