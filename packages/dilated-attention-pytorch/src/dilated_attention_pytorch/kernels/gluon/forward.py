"""Forward: one online softmax over every branch of a tile, each key once.

Legend. The producer streams key and value blocks. Consumer c holds 64 query rows in shared memory
and walks the blocks in three loops: the pieces, then, with masks, the edges up to the first that is
not for it; in both the scores of block i are computed while the values of block i - 1 are added;
last the other edges, one at a time. Scores are kept in base 2.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma_wait,
)

from .tile import (
    add_rows,
    barriers,
    by_rows,
    first_edge,
    half_edges,
    half_pieces,
    half_rows,
    load_edge,
    load_half,
    load_weight,
    own_parts,
    produce,
    product,
    store_half,
    tile_head,
    visible,
)


@gluon.jit
def _softmax(s, row_max, row_sum, log2_scale, bias, MASKED: gl.constexpr):
    """(P, new maximum, rescaled sum, factor for what came before); hidden scores are -inf."""
    new_max = gl.maximum(row_max, gl.max(s, 1) * log2_scale)
    pivot = gl.where(new_max == float("-inf"), 0.0, new_max) if MASKED else new_max
    p = gl.exp2(s * log2_scale - gl.expand_dims(pivot - bias, 1))
    rescale = gl.exp2(row_max - pivot)
    return p, new_max, row_sum * rescale + gl.sum(p, 1), rescale


@gluon.jit
def _resumed(
    lse_ptr, start, step, rows, row_stride, HALF: gl.constexpr, layout: gl.constexpr
):  # fmt: skip
    """(maximum, sum) of a finished result: its rows weigh exp(lse) together, or nothing."""
    row = gl.arange(0, HALF, layout=layout)
    at = (start + row * step).to(gl.int64) * row_stride
    lse = gl.load(lse_ptr + at, mask=row < rows, other=float("-inf"))
    return lse * 1.4426950408889634, gl.where(lse == float("-inf"), 0.0, 1.0)


@gluon.jit
def _consume(
    c: gl.constexpr, query_ptr, query_row, query_head, out_ptr, lse_ptr, out_row, table,
    own, streamed, ready, free, log2_scale,
    BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr, HEAD: gl.constexpr,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr, RESUME: gl.constexpr,
):  # fmt: skip
    score_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK, 16]
    )
    out_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16]
    )
    left: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=out_layout, k_width=2)
    rows_of_score: gl.constexpr = gl.SliceLayout(1, score_layout)
    rows_of_out: gl.constexpr = gl.SliceLayout(1, out_layout)
    dtype: gl.constexpr = own.dtype

    head = tile_head(table, False)
    start, step, rows = half_rows(table, c, False)
    begin, end, _ = half_pieces(table, c)
    edge = first_edge(table, c)
    own_end, _ = half_edges(table, c, False)
    query_ptr += head.to(gl.int64) * query_head
    x = load_half(query_ptr, start, step, rows, query_row, HEAD, HALF, D, by_rows(D))
    # The first block, a piece's or an edge.
    piece = begin < end
    entry = table + gl.where(piece, begin, edge)
    first = load_edge(entry)
    bias = load_weight(entry + gl.where(piece, 1, 3), 0)
    sign = gl.where(log2_scale < 0, -1.0, 1.0)
    # Not 0, of which the product with a hidden score would be NaN.
    log2_scale = gl.maximum(log2_scale * sign, 1e-30)
    query = own.index(c)
    query.store((x * sign).to(dtype))
    fence_async_shared()
    gl.thread_barrier()
    query = own_parts(query, HEAD, D, score_layout)
    row_max = gl.full([HALF], float("-inf"), gl.float32, layout=rows_of_score)
    row_sum = gl.full([HALF], 0.0, gl.float32, layout=rows_of_score)
    acc = gl.zeros([HALF, D], gl.float32, layout=out_layout)
    if RESUME:
        row_max, row_sum = _resumed(
            lse_ptr + head, start, step, rows, out_row // HEAD, HALF, rows_of_score
        )
        resumed = out_ptr + head.to(gl.int64) * HEAD
        acc = load_half(resumed, start, step, rows, out_row, HEAD, HALF, D, out_layout)
    i = 0
    if piece | (edge < own_end):
        seen = visible(start, step, first, False, CAUSAL, HALF, BLOCK, score_layout) | piece
        mbarrier.wait(ready.index(0), 0)
        s = product(query, streamed, 0, BLOCK, HALF, D, score_layout)
        s = warpgroup_mma_wait(0, deps=(s,))
        mbarrier.arrive(free.index(0), count=1)
        s = gl.where(seen, s, float("-inf"))
        p, row_max, row_sum, rescale = _softmax(s, row_max, row_sum, log2_scale, bias, True)
        if RESUME:
            acc = acc * gl.expand_dims(gl.convert_layout(rescale, rows_of_out), 1)
        p16 = gl.convert_layout(p.to(dtype), left)
        edge += gl.where(piece, 0, 8)
        i = 1
        for at in range(begin, end, 8):
            bias = load_weight(table + at, 1)
            for _ in range(gl.where(at == begin, 1, 0), gl.load(table + at)):
                before = i - 1
                mbarrier.wait(ready.index(i % STAGES), (i // STAGES) & 1)
                s = product(query, streamed, i % STAGES, BLOCK, HALF, D, score_layout)
                mbarrier.wait(ready.index(STAGES + before % STAGES), (before // STAGES) & 1)
                acc = add_rows(acc, p16, streamed, STAGES + before % STAGES, BLOCK, D)
                s = warpgroup_mma_wait(1, deps=(s,))
                mbarrier.arrive(free.index(i % STAGES), count=1)
                p, row_max, row_sum, rescale = _softmax(
                    s, row_max, row_sum, log2_scale, bias, False
                )
                acc = warpgroup_mma_wait(0, deps=(acc,))
                mbarrier.arrive(free.index(STAGES + before % STAGES), count=1)
                acc = acc * gl.expand_dims(gl.convert_layout(rescale, rows_of_out), 1)
                p16 = gl.convert_layout(p.to(dtype), left)
                i += 1
        start, step, rows = half_rows(table, c, True)
        own_end, _ = half_edges(table, c, True)
        for at in range(edge, own_end, 8):
            entry = table + at
            before = i - 1
            mbarrier.wait(ready.index(i % STAGES), (i // STAGES) & 1)
            s = product(query, streamed, i % STAGES, BLOCK, HALF, D, score_layout)
            mbarrier.wait(ready.index(STAGES + before % STAGES), (before // STAGES) & 1)
            acc = add_rows(acc, p16, streamed, STAGES + before % STAGES, BLOCK, D)
            seen = visible(start, step, load_edge(entry), False, CAUSAL, HALF, BLOCK, score_layout)
            bias = load_weight(entry, 3)
            s = warpgroup_mma_wait(1, deps=(s,))
            mbarrier.arrive(free.index(i % STAGES), count=1)
            s = gl.where(seen, s, float("-inf"))
            p, row_max, row_sum, rescale = _softmax(s, row_max, row_sum, log2_scale, bias, True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(free.index(STAGES + before % STAGES), count=1)
            acc = acc * gl.expand_dims(gl.convert_layout(rescale, rows_of_out), 1)
            p16 = gl.convert_layout(p.to(dtype), left)
            i += 1
        before = i - 1
        mbarrier.wait(ready.index(STAGES + before % STAGES), (before // STAGES) & 1)
        acc = add_rows(acc, p16, streamed, STAGES + before % STAGES, BLOCK, D)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(free.index(STAGES + before % STAGES), count=1)

    start, step, rows = half_rows(table, c, True)
    own_end, last_edge = half_edges(table, c, True)
    for at in range(own_end, last_edge, 8):
        entry = table + at
        turn = (i // STAGES) & 1
        mbarrier.wait(ready.index(i % STAGES), turn)
        mbarrier.wait(ready.index(STAGES + i % STAGES), turn)
        if (gl.load(entry + 4) >> c) & 1 != 0:
            s = product(query, streamed, i % STAGES, BLOCK, HALF, D, score_layout)
            seen = visible(start, step, load_edge(entry), False, CAUSAL, HALF, BLOCK, score_layout)
            bias = load_weight(entry, 3)
            s = warpgroup_mma_wait(0, deps=(s,))
            s = gl.where(seen, s, float("-inf"))
            p, row_max, row_sum, rescale = _softmax(s, row_max, row_sum, log2_scale, bias, True)
            acc = acc * gl.expand_dims(gl.convert_layout(rescale, rows_of_out), 1)
            p16 = gl.convert_layout(p.to(dtype), left)
            acc = add_rows(acc, p16, streamed, STAGES + i % STAGES, BLOCK, D)
            acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(free.index(i % STAGES), count=1)
        mbarrier.arrive(free.index(STAGES + i % STAGES), count=1)
        i += 1

    empty = row_sum == 0.0
    row_sum = gl.where(empty, 1.0, row_sum)
    lse = gl.where(empty, float("-inf"), (row_max + gl.log2(row_sum)) * 0.6931471805599453)
    head = tile_head(table, True)
    row = gl.arange(0, HALF, layout=rows_of_score)
    at = (start + row * step).to(gl.int64) * (out_row // HEAD)
    gl.store(lse_ptr + head + at, lse, mask=row < rows)
    acc = acc * gl.expand_dims(gl.convert_layout(1.0 / row_sum, rows_of_out), 1)
    out_ptr += head.to(gl.int64) * HEAD
    store_half(out_ptr, acc, start, step, rows, out_row, own.index(c), HEAD, HALF, D, out_layout)


@gluon.jit
def forward_kernel(
    query_ptr, lse_ptr, out_ptr, table,
    query_batch, query_row, query_head, length, heads, group, log2_scale,
    k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11,
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11,
    VIEWS: gl.constexpr, BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr,
    HEAD: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, RESUME: gl.constexpr,
):  # fmt: skip
    """out (b, n, H, d) and lse (b, n, H), contiguous; every row of a tile is written once.

    RESUME: both, out in float32, hold the result over other keys, to which these are added.
    """
    key_views = (k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11)
    value_views = (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11)
    dtype: gl.constexpr = k0.dtype
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([HALF, D], dtype)
    own = gl.allocate_shared_memory(dtype, [2, HALF, D], layout)
    streamed = gl.allocate_shared_memory(dtype, [2 * STAGES, 1, 1, 1, BLOCK, D], k0.layout)
    ready = barriers(2 * STAGES, 1)
    free = barriers(2 * STAGES, 2)
    batch = gl.program_id(1).to(gl.int64)
    query_ptr += batch * query_batch
    row = batch * length * heads
    out_ptr += row * HEAD
    lse_ptr += row
    out_row = heads * HEAD
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    0, query_ptr, query_row, query_head, out_ptr, lse_ptr, out_row, table,
                    own, streamed, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL, RESUME,
                ),
            ),
            (
                _consume,
                (
                    1, query_ptr, query_row, query_head, out_ptr, lse_ptr, out_row, table,
                    own, streamed, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL, RESUME,
                ),
            ),
            (
                produce,
                (
                    key_views, value_views, table, streamed, ready, free, group,
                    lse_ptr, lse_ptr, length, ready,
                    VIEWS, BLOCK, STAGES, D, False, False,
                ),
            ),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
