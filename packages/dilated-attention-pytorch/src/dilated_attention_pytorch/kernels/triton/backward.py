"""Backward: dq by tiles of query rows, dk and dv by tiles of key rows; each row written once.

With the global lse and delta = <dout, out> - dlse: P = exp(s - lse), dS = P (D dP - delta),
dV = (P D)^T dout, dQ = scale dS k, dK = scale dS^T q. No atomics, so bits repeat.

lse comes in base 2, +inf for rows without keys (which makes their weights 0), and like delta it is
laid out (b, H, n), so that a program reads rows of one head side by side.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tile import add_product, dropout_factor, load_all_rows, load_rows, visible_pairs


@triton.jit
def walk_keys(
    dquery, query, dout, lse2, delta, query_positions, key_base, value_base, mask_base,
    begin, end, count, row_first, row_step, first, step, rate, segment_length, document, branch,
    sequence, seed, threshold, kept_scale, key_stride, value_stride, log2_scale, columns,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Keys begin:end of one branch's range, added to the tile's dq (without the scale)."""
    offsets = tl.arange(0, BLOCK_N)
    row_offsets = (row_first + offsets * row_step).to(tl.int64)
    key_rows = key_base + row_offsets * key_stride
    value_rows = value_base + row_offsets * value_stride
    key_step = row_step.to(tl.int64) * key_stride
    value_step = row_step.to(tl.int64) * value_stride
    for start in range(begin, end, BLOCK_N):
        number = start + offsets
        positions = first + number * step
        key_at = key_rows + start * key_step
        value_at = value_rows + start * value_step
        if MASKED:
            inside = number < count
            key = load_rows(key_at, columns, HEAD, BLOCK_D, inside)
            value = load_rows(value_at, columns, HEAD, BLOCK_D, inside)
        else:
            key = load_all_rows(key_at, columns, HEAD, BLOCK_D)
            value = load_all_rows(value_at, columns, HEAD, BLOCK_D)
        if KEY_MASK:
            row = row_first + number * row_step
            allowed = tl.load(mask_base + row, mask=number < count, other=0) != 0
            key = tl.where(allowed[:, None], key, 0.0)
            value = tl.where(allowed[:, None], value, 0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * log2_scale
        weights = tl.math.exp2(scores - lse2[:, None])
        if MASKED:
            seen = visible_pairs(
                query_positions[:, None],
                positions[None, :],
                inside[None, :],
                document,
                segment_length,
                CAUSAL,
                SEGMENTS,
            )
            weights = tl.where(seen, weights, 0.0)
        if KEY_MASK:
            weights = tl.where(allowed[None, :], weights, 0.0)
        dweights = tl.dot(dout, tl.trans(value), input_precision=PRECISION)
        if DROPOUT:
            dweights = dweights * dropout_factor(
                seed,
                threshold,
                kept_scale,
                sequence,
                branch,
                query_positions[:, None],
                (((positions - document) % segment_length) // rate)[None, :],
            )
        dscores = weights * (dweights - delta[:, None])
        dquery = add_product(dquery, dscores.to(key.dtype), key, PRECISION)
    return dquery


@triton.jit
def dquery_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, dout_ptr, lse_ptr, delta_ptr, dquery_ptr,
    seed_ptr, programs_ptr, tiles_ptr, entries_ptr, branches_ptr, threshold, kept_scale,
    log2_scale, scale, query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dq (b, n, H, d), contiguous."""
    program = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    head = tl.load(programs_ptr + 2 * program)
    tile = tl.load(programs_ptr + 2 * program + 1).to(tl.int64)
    start = tl.load(tiles_ptr + 4 * tile)
    step = tl.load(tiles_ptr + 4 * tile + 1)
    rows = tl.load(tiles_ptr + 4 * tile + 2)
    document = tl.load(tiles_ptr + 4 * tile + 3)

    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    positions = start + row * step
    place = positions.to(tl.int64)
    query_base = query_ptr + batch * query_batch + head.to(tl.int64) * query_head
    dout_base = dout_ptr + batch * dout_batch + head.to(tl.int64) * dout_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    dout = load_rows(dout_base + place * dout_row, columns, HEAD, BLOCK_D, valid)
    statistics = (batch * heads + head) * length + place
    lse2 = tl.load(lse_ptr + statistics, mask=valid, other=float("inf"))
    delta = tl.load(delta_ptr + statistics, mask=valid, other=0.0)
    key_value_head = (head // group).to(tl.int64)
    key_base = key_ptr + batch * key_batch + key_value_head * key_head
    value_base = value_ptr + batch * value_batch + key_value_head * value_head
    mask_base = mask_ptr + batch * length
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    sequence = batch * heads + head

    dquery = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for branch in range(BRANCHES):
        entry = entries_ptr + (tile * BRANCHES + branch) * 4
        count = tl.load(entry + 1)
        if count > 0:
            first = tl.load(entry)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            segment_length = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            dquery = walk_keys(
                dquery, query, dout, lse2, delta, positions, key_base, value_base, mask_base,
                full_begin, full_end, count, first, rate, first, rate, rate, segment_length,
                document, branch, sequence, seed, threshold, kept_scale, key_row, value_row,
                log2_scale, columns, False, CAUSAL, SEGMENTS, KEY_MASK, DROPOUT, HEAD, BLOCK_D,
                BLOCK_N, PRECISION,
            )  # fmt: skip
            dquery = walk_keys(
                dquery, query, dout, lse2, delta, positions, key_base, value_base, mask_base,
                full_end, count, count, first, rate, first, rate, rate, segment_length, document,
                branch, sequence, seed, threshold, kept_scale, key_row, value_row, log2_scale,
                columns, True, CAUSAL, SEGMENTS, KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N,
                PRECISION,
            )  # fmt: skip
    at = (batch * length + place) * heads + head
    pointers = dquery_ptr + at[:, None] * HEAD + columns[None, :]
    written = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(pointers, (dquery * scale).to(dquery_ptr.dtype.element_ty), mask=written)


@triton.jit
def walk_queries(
    dkey, dvalue, key, value, key_positions, query_base, dout_base, lse_base, delta_base,
    begin, end, count, real, row_first, row_step, first, step, rate, segment_length, document,
    branch, sequence, seed, threshold, kept_scale, query_stride, dout_stride, log2_scale, columns,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    DROPOUT: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Queries begin:end of one branch's range, added to the tile's dk (without scale) and dv.

    Queries from number `real` on are zeros; there are none in an unmasked stretch.
    """
    offsets = tl.arange(0, BLOCK_N)
    row_offsets = (row_first + offsets * row_step).to(tl.int64)
    query_rows = query_base + row_offsets * query_stride
    dout_rows = dout_base + row_offsets * dout_stride
    query_step = row_step.to(tl.int64) * query_stride
    dout_step = row_step.to(tl.int64) * dout_stride
    for start in range(begin, end, BLOCK_N):
        number = start + offsets
        inside = number < count
        positions = first + number * step
        row = row_first + number * row_step
        query_at = query_rows + start * query_step
        dout_at = dout_rows + start * dout_step
        if MASKED:
            query = load_rows(query_at, columns, HEAD, BLOCK_D, number < real)
            dout = load_rows(dout_at, columns, HEAD, BLOCK_D, inside)
            lse2 = tl.load(lse_base + row, mask=inside, other=float("inf"))
            delta = tl.load(delta_base + row, mask=inside, other=0.0)
        else:
            query = load_all_rows(query_at, columns, HEAD, BLOCK_D)
            dout = load_all_rows(dout_at, columns, HEAD, BLOCK_D)
            lse2 = tl.load(lse_base + row)
            delta = tl.load(delta_base + row)
        scores = tl.dot(key, tl.trans(query), input_precision=PRECISION) * log2_scale
        weights = tl.math.exp2(scores - lse2[None, :])
        if MASKED:
            seen = visible_pairs(
                positions[None, :],
                key_positions[:, None],
                inside[None, :],
                document,
                segment_length,
                CAUSAL,
                SEGMENTS,
            )
            weights = tl.where(seen, weights, 0.0)
        dweights = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weights
        if DROPOUT:
            factor = dropout_factor(
                seed,
                threshold,
                kept_scale,
                sequence,
                branch,
                positions[None, :],
                (((key_positions - document) % segment_length) // rate)[:, None],
            )
            dropped = weights * factor
            dweights = dweights * factor
        dvalue = add_product(dvalue, dropped.to(dout.dtype), dout, PRECISION)
        dscores = weights * (dweights - delta[None, :])
        dkey = add_product(dkey, dscores.to(query.dtype), query, PRECISION)
    return dkey, dvalue


@triton.jit
def dkey_dvalue_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, dout_ptr, lse_ptr, delta_ptr, dkey_ptr, dvalue_ptr,
    seed_ptr, programs_ptr, tiles_ptr, entries_ptr, branches_ptr, threshold, kept_scale,
    log2_scale, scale, query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv (b, n, H_kv, d), contiguous, summed over the query heads of the group."""
    program = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    head = tl.load(programs_ptr + 2 * program)
    tile = tl.load(programs_ptr + 2 * program + 1).to(tl.int64)
    start = tl.load(tiles_ptr + 4 * tile)
    step = tl.load(tiles_ptr + 4 * tile + 1)
    rows = tl.load(tiles_ptr + 4 * tile + 2)
    document = tl.load(tiles_ptr + 4 * tile + 3)

    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    positions = start + row * step
    place = positions.to(tl.int64)
    written = valid
    if KEY_MASK:
        valid = valid & (tl.load(mask_ptr + batch * length + place, mask=valid, other=0) != 0)
    key_base = key_ptr + batch * key_batch + head.to(tl.int64) * key_head
    value_base = value_ptr + batch * value_batch + head.to(tl.int64) * value_head
    key = load_rows(key_base + place * key_row, columns, HEAD, BLOCK_D, valid)
    value = load_rows(value_base + place * value_row, columns, HEAD, BLOCK_D, valid)
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)

    dkey = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    dvalue = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for lane in range(group * BRANCHES):
        entry = entries_ptr + (tile * group * BRANCHES + lane) * 4
        count = tl.load(entry + 1)
        if count > 0:
            branch = lane % BRANCHES
            query_head_number = (head * group + lane // BRANCHES).to(tl.int64)
            query_base = query_ptr + batch * query_batch + query_head_number * query_head
            dout_base = dout_ptr + batch * dout_batch + query_head_number * dout_head
            lse_base = lse_ptr + (batch * heads + query_head_number) * length
            delta_base = delta_ptr + (batch * heads + query_head_number) * length
            sequence = batch * heads + query_head_number
            first = tl.load(entry)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            segment_length = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            if CAUSAL:
                dkey, dvalue = walk_queries(
                    dkey, dvalue, key, value, positions, query_base, dout_base, lse_base,
                    delta_base, 0, full_begin, count, count, first, rate, first, rate, rate,
                    segment_length, document, branch, sequence, seed, threshold, kept_scale,
                    query_row, dout_row, log2_scale, columns, True, CAUSAL, SEGMENTS, DROPOUT, HEAD,
                    BLOCK_D, BLOCK_N, PRECISION,
                )  # fmt: skip
            dkey, dvalue = walk_queries(
                dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
                full_begin, full_end, count, count, first, rate, first, rate, rate, segment_length,
                document, branch, sequence, seed, threshold, kept_scale, query_row, dout_row,
                log2_scale, columns, False, CAUSAL, SEGMENTS, DROPOUT, HEAD, BLOCK_D, BLOCK_N,
                PRECISION,
            )  # fmt: skip
            dkey, dvalue = walk_queries(
                dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
                full_end, count, count, count, first, rate, first, rate, rate, segment_length,
                document, branch, sequence, seed, threshold, kept_scale, query_row, dout_row,
                log2_scale, columns, True, CAUSAL, SEGMENTS, DROPOUT, HEAD, BLOCK_D, BLOCK_N,
                PRECISION,
            )  # fmt: skip
    if KEY_MASK:
        dkey = tl.where(valid[:, None], dkey, 0.0)
        dvalue = tl.where(valid[:, None], dvalue, 0.0)
    at = ((batch * length + place) * (heads // group) + head)[:, None] * HEAD + columns[None, :]
    inside = written[:, None] & (columns[None, :] < HEAD)
    tl.store(dkey_ptr + at, (dkey * scale).to(dkey_ptr.dtype.element_ty), mask=inside)
    tl.store(dvalue_ptr + at, dvalue.to(dvalue_ptr.dtype.element_ty), mask=inside)
