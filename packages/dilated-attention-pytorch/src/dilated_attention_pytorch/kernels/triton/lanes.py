"""torchscale's modes: a softmax of its own for every branch (lane), mixed into one.

A program takes a tile of rows of one head that the same branches select, as `forward` and
`backward` do, and meets the branches one after the other. What differs:

- A branch may shift rows: a row of out answers the query `shift` before it; queries past the end of
  their segment are zeros.
- Phantom keys have score 0 and value 0, so that a row that sees m of them starts its softmax at
  maximum 0 with sum m; a lane whose lse is exactly 0 then counts as one that sees nothing.
- The mix is `lse = logaddexp_i lse_i`, `out = sum_i exp(lse_i - lse) out_i`, in float32.

Since `exp(lse_i - lse) P_i` is the joint P, backward runs on the joint lse; delta comes for each
lane, and lse2 = +inf drops a lane's row.
"""

# Device code has Triton's types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from .backward import walk_keys, walk_queries
from .forward import walk_softmax
from .tile import load_rows


@triton.jit
def _phantom_rows(positions, origin, span, rate, segment_length, length, CAUSAL: tl.constexpr):
    """How many phantom keys the queries at these positions see; they come after the real ones.

    Of the `ceil(w / r)` rows of a (segment, offset) as many are real as lie before the end.
    """
    place = (positions - origin) % span
    rows = tl.cdiv(segment_length, rate)
    inside = tl.minimum(segment_length, length - (positions - place))
    real = (inside - place % rate + rate - 1) // rate
    seen = rows
    if CAUSAL:
        seen = tl.minimum(rows, place // rate + 1)
    return tl.maximum(seen - real, 0)


@triton.jit
def lanes_forward_kernel(
    query_ptr, key_ptr, value_ptr, out_ptr, lse_ptr, lane_out_ptr, lane_lse_ptr,
    programs_ptr, tiles_ptr, entries_ptr, lanes_ptr, branches_ptr, log2_scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr, PHANTOMS: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out (b, n, H, d), lse (b, n, H), and both of every lane; contiguous, written once."""
    program = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head = tl.load(programs_ptr + 2 * program)
    tile = tl.load(programs_ptr + 2 * program + 1).to(tl.int64)
    start = tl.load(tiles_ptr + 4 * tile)
    step = tl.load(tiles_ptr + 4 * tile + 1)
    rows = tl.load(tiles_ptr + 4 * tile + 2)

    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    positions = start + row * step
    query_base = query_ptr + batch * query_batch + head.to(tl.int64) * query_head
    key_value_head = (head // group).to(tl.int64)
    key_base = key_ptr + batch * key_batch + key_value_head * key_head
    value_base = value_ptr + batch * value_batch + key_value_head * value_head

    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    written = valid[:, None] & (columns[None, :] < HEAD)
    for branch in range(BRANCHES):
        entry = entries_ptr + (tile * BRANCHES + branch) * 4
        lane = lanes_ptr + (tile * BRANCHES + branch) * 4
        lane_acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
        lane_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
        lane_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
        if tl.load(lane) > 0:
            first = tl.load(entry)
            count = tl.load(entry + 1)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            asked = positions - tl.load(lane + 1)
            origin = tl.load(lane + 3)
            span = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            segment_length = tl.load(branches_ptr + 3 * branch + 2)
            query_rows = query_base + asked.to(tl.int64) * query_row
            there = valid & (asked < tl.load(lane + 2))
            query = load_rows(query_rows, columns, HEAD, BLOCK_D, there)
            if PHANTOMS:
                phantoms = _phantom_rows(asked, origin, span, rate, segment_length, length, CAUSAL)
                lane_sum = phantoms.to(tl.float32)
                lane_max = tl.where(phantoms > 0, 0.0, float("-inf"))
            lane_acc, lane_max, lane_sum = walk_softmax(
                lane_acc, lane_max, lane_sum, query, asked, key_base, value_base, tiles_ptr,
                full_begin, full_end, count, first, rate, first, rate, rate, span, origin, branch,
                0, 0, 0, 1.0, key_row, value_row, log2_scale, columns, False, CAUSAL, SEGMENTS,
                False, False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
            lane_acc, lane_max, lane_sum = walk_softmax(
                lane_acc, lane_max, lane_sum, query, asked, key_base, value_base, tiles_ptr,
                full_end, count, count, first, rate, first, rate, rate, span, origin, branch, 0, 0,
                0, 1.0, key_row, value_row, log2_scale, columns, True, CAUSAL, SEGMENTS, False,
                False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
        safe = tl.where(lane_sum == 0.0, 1.0, lane_sum)
        lane_lse = (lane_max + tl.math.log2(safe)) * 0.6931471805599453
        empty = lane_sum == 0.0
        if PHANTOMS:
            # torchscale marks uncovered rows by lse = 0, so a true lse of 0 counts as uncovered.
            empty = empty | (lane_lse == 0.0)
        lane_out = tl.where(empty[:, None], 0.0, lane_acc / safe[:, None])
        at = ((branch * batches + batch) * length + positions) * heads + head
        tl.store(lane_lse_ptr + at, tl.where(empty, float("-inf"), lane_lse), mask=valid)
        lane_pointers = lane_out_ptr + at[:, None] * HEAD + columns[None, :]
        tl.store(lane_pointers, lane_out.to(lane_out_ptr.dtype.element_ty), mask=written)

        lane_max = tl.where(empty, float("-inf"), lane_max)
        new_max = tl.maximum(row_max, lane_max)
        pivot = tl.where(new_max == float("-inf"), 0.0, new_max)
        old, new = tl.math.exp2(row_max - pivot), tl.math.exp2(lane_max - pivot)
        row_sum = row_sum * old + lane_sum * new
        acc = acc * old[:, None] + tl.where(empty[:, None], 0.0, lane_acc * new[:, None])
        row_max = new_max

    empty = row_sum == 0.0
    safe = tl.where(empty, 1.0, row_sum)
    lse = tl.where(empty, float("-inf"), (row_max + tl.math.log2(safe)) * 0.6931471805599453)
    at = (batch * length + positions) * heads + head
    tl.store(lse_ptr + at, lse, mask=valid)
    pointers = out_ptr + at[:, None] * HEAD + columns[None, :]
    tl.store(pointers, (acc / safe[:, None]).to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def lanes_dquery_kernel(
    query_ptr, key_ptr, value_ptr, dout_ptr, lse_ptr, delta_ptr, dquery_ptr,
    programs_ptr, tiles_ptr, entries_ptr, lanes_ptr, branches_ptr, log2_scale, scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dq (b, n, H, d), contiguous, summed over the lanes that the tile's queries answer."""
    program = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head = tl.load(programs_ptr + 2 * program)
    tile = tl.load(programs_ptr + 2 * program + 1).to(tl.int64)
    start = tl.load(tiles_ptr + 4 * tile)
    step = tl.load(tiles_ptr + 4 * tile + 1)
    rows = tl.load(tiles_ptr + 4 * tile + 2)

    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    positions = start + row * step
    place = positions.to(tl.int64)
    query_base = query_ptr + batch * query_batch + head.to(tl.int64) * query_head
    dout_base = dout_ptr + batch * dout_batch + head.to(tl.int64) * dout_head
    query = load_rows(query_base + place * query_row, columns, HEAD, BLOCK_D, valid)
    key_value_head = (head // group).to(tl.int64)
    key_base = key_ptr + batch * key_batch + key_value_head * key_head
    value_base = value_ptr + batch * value_batch + key_value_head * value_head

    dquery = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for branch in range(BRANCHES):
        entry = entries_ptr + (tile * BRANCHES + branch) * 4
        count = tl.load(entry + 1)
        if count > 0:
            first = tl.load(entry)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            lane = lanes_ptr + (tile * BRANCHES + branch) * 4
            answer = place + tl.load(lane + 1)
            origin = tl.load(lane + 3)
            span = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            dout = load_rows(dout_base + answer * dout_row, columns, HEAD, BLOCK_D, valid)
            statistics = ((branch * batches + batch) * heads + head) * length + answer
            lse2 = tl.load(lse_ptr + statistics, mask=valid, other=float("inf"))
            delta = tl.load(delta_ptr + statistics, mask=valid, other=0.0)
            dquery = walk_keys(
                dquery, query, dout, lse2, delta, positions, key_base, value_base, tiles_ptr,
                full_begin, full_end, count, first, rate, first, rate, rate, span, origin, branch,
                0, 0, 0, 1.0, key_row, value_row, log2_scale, columns, False, CAUSAL, SEGMENTS,
                False, False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
            dquery = walk_keys(
                dquery, query, dout, lse2, delta, positions, key_base, value_base, tiles_ptr,
                full_end, count, count, first, rate, first, rate, rate, span, origin, branch, 0, 0,
                0, 1.0, key_row, value_row, log2_scale, columns, True, CAUSAL, SEGMENTS, False,
                False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
    at = (batch * length + place) * heads + head
    pointers = dquery_ptr + at[:, None] * HEAD + columns[None, :]
    written = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(pointers, (dquery * scale).to(dquery_ptr.dtype.element_ty), mask=written)


@triton.jit
def lanes_dkey_dvalue_kernel(
    query_ptr, key_ptr, value_ptr, dout_ptr, lse_ptr, delta_ptr, dkey_ptr, dvalue_ptr,
    programs_ptr, tiles_ptr, entries_ptr, lanes_ptr, branches_ptr, log2_scale, scale,
    query_batch, query_row, query_head, key_batch, key_row, key_head,
    value_batch, value_row, value_head, dout_batch, dout_row, dout_head, length, heads, group,
    BRANCHES: tl.constexpr, CAUSAL: tl.constexpr, SEGMENTS: tl.constexpr,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv (b, n, H_kv, d), contiguous, summed over lanes and the query heads of the group."""
    program = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    batches = tl.num_programs(1)
    head = tl.load(programs_ptr + 2 * program)
    tile = tl.load(programs_ptr + 2 * program + 1).to(tl.int64)
    start = tl.load(tiles_ptr + 4 * tile)
    step = tl.load(tiles_ptr + 4 * tile + 1)
    rows = tl.load(tiles_ptr + 4 * tile + 2)

    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_D)
    valid = row < rows
    positions = start + row * step
    place = positions.to(tl.int64)
    key_base = key_ptr + batch * key_batch + head.to(tl.int64) * key_head
    value_base = value_ptr + batch * value_batch + head.to(tl.int64) * value_head
    key = load_rows(key_base + place * key_row, columns, HEAD, BLOCK_D, valid)
    value = load_rows(value_base + place * value_row, columns, HEAD, BLOCK_D, valid)

    dkey = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    dvalue = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for number in range(group * BRANCHES):
        entry = entries_ptr + (tile * group * BRANCHES + number) * 4
        count = tl.load(entry + 1)
        if count > 0:
            branch = number % BRANCHES
            query_head_number = (head * group + number // BRANCHES).to(tl.int64)
            first = tl.load(entry)
            full_begin = tl.load(entry + 2)
            full_end = tl.load(entry + 3)
            lane = lanes_ptr + (tile * group * BRANCHES + number) * 4
            shift = tl.load(lane + 1).to(tl.int64)
            origin = tl.load(lane + 3)
            span = tl.load(branches_ptr + 3 * branch)
            rate = tl.load(branches_ptr + 3 * branch + 1)
            real = (tl.load(lane + 2) - first + rate - 1) // rate
            query_base = query_ptr + batch * query_batch + query_head_number * query_head
            dout_base = dout_ptr + batch * dout_batch + query_head_number * dout_head
            dout_base += shift * dout_row
            statistics = ((branch * batches + batch) * heads + query_head_number) * length + shift
            lse_base = lse_ptr + statistics
            delta_base = delta_ptr + statistics
            if CAUSAL:
                dkey, dvalue = walk_queries(
                    dkey, dvalue, key, value, positions, query_base, dout_base, lse_base,
                    delta_base, 0, full_begin, count, real, first, rate, first, rate, rate, span,
                    origin, branch, 0, 0, 0, 1.0, query_row, dout_row, log2_scale, columns, True,
                    CAUSAL, SEGMENTS, False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
                )  # fmt: skip
            dkey, dvalue = walk_queries(
                dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
                full_begin, full_end, count, real, first, rate, first, rate, rate, span, origin,
                branch, 0, 0, 0, 1.0, query_row, dout_row, log2_scale, columns, False, CAUSAL,
                SEGMENTS, False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
            dkey, dvalue = walk_queries(
                dkey, dvalue, key, value, positions, query_base, dout_base, lse_base, delta_base,
                full_end, count, count, real, first, rate, first, rate, rate, span, origin, branch,
                0, 0, 0, 1.0, query_row, dout_row, log2_scale, columns, True, CAUSAL, SEGMENTS,
                False, HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
    at = ((batch * length + place) * (heads // group) + head)[:, None] * HEAD + columns[None, :]
    inside = valid[:, None] & (columns[None, :] < HEAD)
    tl.store(dkey_ptr + at, (dkey * scale).to(dkey_ptr.dtype.element_ty), mask=inside)
    tl.store(dvalue_ptr + at, dvalue.to(dvalue_ptr.dtype.element_ty), mask=inside)
