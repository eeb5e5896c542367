"""Forward: one program per tile of query rows, one online softmax over all branches.

Legend. A tile is BLOCK_M query rows of one head that the same branches select
(`schedule/tables.py`). For branch i the table names a range of keys that step by r_i; the program
walks those ranges, BLOCK_N keys at a time: masked, unmasked, masked. Scores are kept in base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tile import add_product, dropout_factor, load_all_rows, load_rows, visible_pairs


@triton.jit
def walk_softmax(
    acc,
    row_max,
    row_sum,
    query,
    query_positions,
    key_base,
    value_base,
    mask_base,
    begin,
    end,
    count,
    row_first,
    row_step,
    first,
    step,
    rate,
    segment_length,
    document,
    branch,
    sequence,
    seed,
    threshold,
    kept_scale,
    key_stride,
    value_stride,
    log2_scale,
    columns,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    SEGMENTS: tl.constexpr,
    KEY_MASK: tl.constexpr,
    DROPOUT: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Keys begin:end of one branch's range, merged into the running softmax.

    Key i stands at position first + i step, in the row row_first + i row_step of the storage.
    """
    offsets = tl.arange(0, BLOCK_N)
    # Row pointers advance by a scalar; 64-bit products stay out of the loop.
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
        else:
            key = load_all_rows(key_at, columns, HEAD, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * log2_scale
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
            scores = tl.where(seen, scores, float("-inf"))
        if KEY_MASK:
            row = row_first + number * row_step
            allowed = tl.load(mask_base + row, mask=number < count, other=0) != 0
            scores = tl.where(allowed[None, :], scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        pivot = new_max
        if MASKED or KEY_MASK:
            pivot = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.math.exp2(scores - pivot[:, None])
        rescale = tl.math.exp2(row_max - pivot)
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        if DROPOUT:
            # Keys of a segment are numbered from its first selected row.
            weights = weights * dropout_factor(
                seed,
                threshold,
                kept_scale,
                sequence,
                branch,
                query_positions[:, None],
                (((positions - document) % segment_length) // rate)[None, :],
            )
        if MASKED:
            value = load_rows(value_at, columns, HEAD, BLOCK_D, inside)
        else:
            value = load_all_rows(value_at, columns, HEAD, BLOCK_D)
        if KEY_MASK:
            value = tl.where(allowed[:, None], value, 0.0)
        acc = acc * rescale[:, None]
        acc = add_product(acc, weights.to(value.dtype), value, PRECISION)
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def forward_kernel(
    query_ptr, key_ptr, value_ptr, mask_ptr, out_ptr, lse_ptr, seed_ptr,
    programs_ptr, tiles_ptr, entries_ptr, branches_ptr, threshold, kept_scale, log2_scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    KEY_MASK: tl.constexpr, DROPOUT: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (b, n, H, d) and lse (b, n, H), contiguous; every row is written once."""
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
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    key_value_head = (head // group).to(tl.int64)
    key_base = key_ptr + batch * key_batch + key_value_head * key_head
    value_base = value_ptr + batch * value_batch + key_value_head * value_head
    mask_base = mask_ptr + batch * length
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    sequence = batch * heads + head

    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    for branch in range(BRANCHES):
        entry = entries_ptr + (tile * BRANCHES + branch) * 4
        count = tl.load(entry + 1)
        if count > 0:
            first = tl.load(entry)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            segment_length = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            acc, row_max, row_sum = walk_softmax(
                acc, row_max, row_sum, query, positions, key_base, value_base, mask_base,
                full_begin, full_end, count, first, rate, first, rate, rate, segment_length,
                document, branch, sequence, seed, threshold, kept_scale, key_row, value_row,
                log2_scale, columns, False, CAUSAL, SEGMENTS, KEY_MASK, DROPOUT, HEAD, BLOCK_D,
                BLOCK_N, PRECISION,
            )  # fmt: skip
            acc, row_max, row_sum = walk_softmax(
                acc, row_max, row_sum, query, positions, key_base, value_base, mask_base, full_end,
                count, count, first, rate, first, rate, rate, segment_length, document, branch,
                sequence, seed, threshold, kept_scale, key_row, value_row, log2_scale, columns,
                True, CAUSAL, SEGMENTS, KEY_MASK, DROPOUT, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip

    empty = row_sum == 0.0
    safe = tl.where(empty, 1.0, row_sum)
    out = acc / safe[:, None]
    lse = tl.where(empty, float("-inf"), (row_max + tl.math.log2(safe)) * 0.6931471805599453)
    at = (batch * length + place) * heads + head
    tl.store(lse_ptr + at, lse, mask=valid)
    out_pointers = out_ptr + at[:, None] * HEAD + columns[None, :]
    out_mask = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(out_pointers, out.to(out_ptr.dtype.element_ty), mask=out_mask)
