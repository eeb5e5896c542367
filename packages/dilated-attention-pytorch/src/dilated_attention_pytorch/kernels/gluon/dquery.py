"""Backward, dq: by tiles of query rows, with the keys streamed as in the forward.

With lse in base 2 and delta = <dout, out> - dlse, both global: P = exp2(s - lse) times the
multiplicity, dS = P (dP - delta), dQ = scale dS k. Of a block, dq is added while the scores of the
next are computed.
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
    product_parts,
    store_half,
    tile_head,
    visible,
)


@gluon.jit
def _consume(
    c: gl.constexpr, query_ptr, query_row, query_head, dout_ptr, dout_row, dout_head,
    lse_ptr, delta_ptr, length, dquery_ptr, out_row, table, own, streamed, ready, free, log2_scale,
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
    dtype: gl.constexpr = own.dtype

    head = tile_head(table, False).to(gl.int64)
    start, step, rows = half_rows(table, c, False)
    begin, end, _ = half_pieces(table, c)
    edge = first_edge(table, c)
    own_end, _ = half_edges(table, c, False)
    query_ptr += head * query_head
    dout_ptr += head * dout_head
    x = load_half(query_ptr, start, step, rows, query_row, HEAD, HALF, D, by_rows(D))
    y = load_half(dout_ptr, start, step, rows, dout_row, HEAD, HALF, D, by_rows(D))
    row = gl.arange(0, HALF, layout=gl.SliceLayout(1, score_layout))
    position = head * length + start + row * step
    lse = gl.expand_dims(gl.load(lse_ptr + position, mask=row < rows, other=float("inf")), 1)
    delta = gl.expand_dims(gl.load(delta_ptr + position, mask=row < rows, other=0.0), 1)
    # The first block, a piece's or an edge.
    piece = begin < end
    entry = table + gl.where(piece, begin, edge)
    first = load_edge(entry)
    bias = load_weight(entry + gl.where(piece, 1, 3), 0)
    scale = log2_scale * 0.6931471805599453
    sign = gl.where(log2_scale < 0, -1.0, 1.0)
    log2_scale = log2_scale * sign
    query = own.index(c)
    dout = own.index(2 + c)
    query.store((x * sign).to(dtype))
    dout.store(y)
    fence_async_shared()
    gl.thread_barrier()
    query = own_parts(query, HEAD, D, score_layout)
    dout = own_parts(dout, HEAD, D, score_layout)
    PARTS: gl.constexpr = product_parts(HEAD, D)
    dquery = gl.zeros([HALF, D], gl.float32, layout=out_layout)
    i = 0
    if piece | (edge < own_end):
        seen = visible(start, step, first, False, CAUSAL, HALF, BLOCK, score_layout) | piece
        mbarrier.wait(ready.index(0), 0)
        s = product(query, streamed, 0, BLOCK, HALF, D, score_layout)
        dp = product(dout, streamed, STAGES, BLOCK, HALF, D, score_layout)
        s = warpgroup_mma_wait(PARTS, deps=(s,))
        p = gl.exp2(s * log2_scale - (lse - bias))
        dp = warpgroup_mma_wait(0, deps=(dp,))
        ds = gl.where(seen, p * (dp - delta), 0.0)
        edge += gl.where(piece, 0, 8)
        i = 1
        for at in range(begin, end, 8):
            biased = lse - load_weight(table + at, 1)
            for _ in range(gl.where(at == begin, 1, 0), gl.load(table + at)):
                stage = i % STAGES
                mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
                s = product(query, streamed, stage, BLOCK, HALF, D, score_layout)
                ds16 = gl.convert_layout(ds.to(dtype), left)
                dquery = add_rows(dquery, ds16, streamed, (i - 1) % STAGES, BLOCK, D)
                dp = product(dout, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
                s = warpgroup_mma_wait(1 + PARTS, deps=(s,))
                p = gl.exp2(s * log2_scale - biased)
                dquery = warpgroup_mma_wait(PARTS, deps=(dquery,))
                mbarrier.arrive(free.index((i - 1) % STAGES), count=1)
                dp = warpgroup_mma_wait(0, deps=(dp,))
                ds = p * (dp - delta)
                i += 1
        start, step, rows = half_rows(table, c, True)
        own_end, _ = half_edges(table, c, True)
        for at in range(edge, own_end, 8):
            entry = table + at
            stage = i % STAGES
            mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
            s = product(query, streamed, stage, BLOCK, HALF, D, score_layout)
            ds16 = gl.convert_layout(ds.to(dtype), left)
            dquery = add_rows(dquery, ds16, streamed, (i - 1) % STAGES, BLOCK, D)
            dp = product(dout, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
            seen = visible(start, step, load_edge(entry), False, CAUSAL, HALF, BLOCK, score_layout)
            bias = load_weight(entry, 3)
            s = warpgroup_mma_wait(1 + PARTS, deps=(s,))
            p = gl.exp2(s * log2_scale - (lse - bias))
            dquery = warpgroup_mma_wait(PARTS, deps=(dquery,))
            mbarrier.arrive(free.index((i - 1) % STAGES), count=1)
            dp = warpgroup_mma_wait(0, deps=(dp,))
            ds = gl.where(seen, p * (dp - delta), 0.0)
            i += 1
        ds16 = gl.convert_layout(ds.to(dtype), left)
        dquery = add_rows(dquery, ds16, streamed, (i - 1) % STAGES, BLOCK, D)
        dquery = warpgroup_mma_wait(0, deps=(dquery,))
        mbarrier.arrive(free.index((i - 1) % STAGES), count=1)

    start, step, rows = half_rows(table, c, True)
    own_end, last_edge = half_edges(table, c, True)
    for at in range(own_end, last_edge, 8):
        entry = table + at
        stage = i % STAGES
        mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
        if (gl.load(entry + 4) >> c) & 1 != 0:
            s = product(query, streamed, stage, BLOCK, HALF, D, score_layout)
            dp = product(dout, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
            seen = visible(start, step, load_edge(entry), False, CAUSAL, HALF, BLOCK, score_layout)
            bias = load_weight(entry, 3)
            s = warpgroup_mma_wait(PARTS, deps=(s,))
            p = gl.exp2(s * log2_scale - (lse - bias))
            dp = warpgroup_mma_wait(0, deps=(dp,))
            ds = gl.where(seen, p * (dp - delta), 0.0)
            ds16 = gl.convert_layout(ds.to(dtype), left)
            dquery = add_rows(dquery, ds16, streamed, i % STAGES, BLOCK, D)
            dquery = warpgroup_mma_wait(0, deps=(dquery,))
        mbarrier.arrive(free.index(stage), count=1)
        i += 1
    dquery = dquery * scale
    dquery_ptr += tile_head(table, True).to(gl.int64) * HEAD
    if RESUME:
        dquery += load_half(dquery_ptr, start, step, rows, out_row, HEAD, HALF, D, out_layout)
    store_half(
        dquery_ptr, dquery, start, step, rows, out_row, own.index(c), HEAD, HALF, D, out_layout
    )


@gluon.jit
def dquery_kernel(
    query_ptr, dout_ptr, lse_ptr, delta_ptr, dquery_ptr, table,
    query_batch, query_row, query_head, dout_batch, dout_row, dout_head,
    length, heads, group, log2_scale,
    k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11,
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11,
    VIEWS: gl.constexpr, BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr,
    HEAD: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, RESUME: gl.constexpr,
):  # fmt: skip
    """dq (b, n, H, d), contiguous; lse and delta are (b, H, n).

    RESUME: dq, in float32, holds the share of other keys, to which that of these is added.
    """
    key_views = (k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11)
    value_views = (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11)
    dtype: gl.constexpr = k0.dtype
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([HALF, D], dtype)
    own = gl.allocate_shared_memory(dtype, [4, HALF, D], layout)
    streamed = gl.allocate_shared_memory(dtype, [2 * STAGES, 1, 1, 1, BLOCK, D], k0.layout)
    ready = barriers(STAGES, 1)
    free = barriers(STAGES, 2)
    batch = gl.program_id(1).to(gl.int64)
    query_ptr += batch * query_batch
    dout_ptr += batch * dout_batch
    statistics = batch * heads * length
    lse_ptr += statistics
    delta_ptr += statistics
    dquery_ptr += statistics * HEAD
    out_row = heads * HEAD
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    0, query_ptr, query_row, query_head, dout_ptr, dout_row, dout_head,
                    lse_ptr, delta_ptr, length, dquery_ptr, out_row, table,
                    own, streamed, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL, RESUME,
                ),
            ),
            (
                _consume,
                (
                    1, query_ptr, query_row, query_head, dout_ptr, dout_row, dout_head,
                    lse_ptr, delta_ptr, length, dquery_ptr, out_row, table,
                    own, streamed, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL, RESUME,
                ),
            ),
            (
                produce,
                (
                    key_views, value_views, table, streamed, ready, free, group,
                    lse_ptr, lse_ptr, length, ready,
                    VIEWS, BLOCK, STAGES, D, True, False,
                ),
            ),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
