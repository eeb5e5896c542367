"""Kernels for one part of the keys of a ring: they add to what earlier parts have left in memory.

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
    """(own head, other head, lane, first entry, last entry + 1, rows, positions, real ones)."""
    program = programs_ptr + 3 * tl.program_id(0).to(tl.int64)
    tile = tiles_ptr + 8 * tl.load(program + 2).to(tl.int64)
    row = tl.arange(0, BLOCK_M)
    place = (tl.load(tile) + row * tl.load(tile + 1)).to(tl.int64)
    positions = tl.load(tile + 3) + row * tl.load(tile + 4)
    return (
        tl.load(program).to(tl.int64),
        tl.load(program + 1).to(tl.int64),
        tl.load(tile + 5).to(tl.int64),
        tl.load(tile + 6),
        tl.load(tile + 7),
        place,
        positions,
        row < tl.load(tile + 2),
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
    programs_ptr, tiles_ptr, entries_ptr, threshold, kept_scale, log2_scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, own_rows, other_rows, heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Update (lanes, b, n, H) maximum (natural) and total, and (lanes, b, n, H, d) weighted."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, other, lane, begin, end, place, positions, valid = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    query_base = query_ptr + batch * query_batch + head * query_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    key_base = key_ptr + batch * key_batch + other * key_head
    value_base = value_ptr + batch * value_batch + other * value_head
    mask_base = mask_ptr + batch * other_rows
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
    programs_ptr, tiles_ptr, entries_ptr, threshold, kept_scale, log2_scale, scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head,
    own_rows, other_rows, heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, LANES: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add to dq (b, n, H, d); lse in base 2 and delta are (lanes, b, H, n), contiguous."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, other, _lane, begin, end, place, positions, valid = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    query_base = query_ptr + batch * query_batch + head * query_head
    dout_base = dout_ptr + batch * dout_batch + head * dout_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    dout = load_rows(dout_base + place * dout_row, columns, HEAD, BLOCK_D, valid)
    key_base = key_ptr + batch * key_batch + other * key_head
    value_base = value_ptr + batch * value_batch + other * value_head
    mask_base = mask_ptr + batch * other_rows
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
    seed_ptr, programs_ptr, tiles_ptr, entries_ptr, threshold, kept_scale, log2_scale, scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head,
    own_rows, other_rows, heads, own_heads,
    CAUSAL: tl.constexpr, KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, LANES: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add to dk and dv (b, rows, heads, d) of the part, over the query heads of the group."""
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head, first_other, _lane, begin, end, place, positions, written = _own_rows(
        programs_ptr, tiles_ptr, BLOCK_M
    )
    columns = tl.arange(0, BLOCK_D)
    valid = written
    if KEY_MASK:
        allowed = tl.load(mask_ptr + batch * own_rows + place, mask=valid, other=0)
        valid = valid & (allowed != 0)
    key_base = key_ptr + batch * key_batch + head * key_head
    value_base = value_ptr + batch * value_batch + head * value_head
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
    at = ((batch * own_rows + place) * own_heads + head) * HEAD
    key_before = load_rows(dkey_ptr + at, columns, HEAD, BLOCK_D, valid)
    value_before = load_rows(dvalue_ptr + at, columns, HEAD, BLOCK_D, valid)
    inside = valid[:, None] & (columns[None, :] < HEAD)
    pointers = at[:, None] + columns[None, :]
    tl.store(dkey_ptr + pointers, key_before + dkey * scale, mask=inside)
    tl.store(dvalue_ptr + pointers, value_before + dvalue, mask=inside)
