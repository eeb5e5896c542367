"""Backward, dk and dv: by tiles of key rows, with queries, dout, lse and delta streamed.

P^T = exp2(s^T - lse) times the multiplicity, which the producer has taken into lse;
dV = P^T dout, dS^T = P^T (dP^T - delta), dK = scale dS^T q. Of a block, dk is added while the
scores of the next are computed.
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
    own_parts,
    produce,
    product,
    product_parts,
    result_rows,
    store_half,
    tile_head,
    visible,
)


@gluon.jit
def _consume(
    c: gl.constexpr, key_ptr, key_row, key_head, value_ptr, value_row, value_head,
    dkey_ptr, dvalue_ptr, out_row, out_head,
    table, own, streamed, statistics, ready, free, log2_scale,
    BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr, HEAD: gl.constexpr,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    score_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK, 16]
    )
    out_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16]
    )
    left: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=out_layout, k_width=2)
    columns: gl.constexpr = gl.SliceLayout(0, score_layout)
    dtype: gl.constexpr = own.dtype

    head = tile_head(table, False).to(gl.int64)
    start, step, rows = half_rows(table, c, False)
    begin, end, blocks = half_pieces(table, c)
    edge = first_edge(table, c)
    own_end, _ = half_edges(table, c, False)
    key_ptr += head * key_head
    value_ptr += head * value_head
    x = load_half(key_ptr, start, step, rows, key_row, HEAD, HALF, D, by_rows(D))
    y = load_half(value_ptr, start, step, rows, value_row, HEAD, HALF, D, by_rows(D))
    # The first block, a piece's or an edge.
    piece = begin < end
    first = load_edge(table + gl.where(piece, begin, edge))
    scale = log2_scale * 0.6931471805599453
    sign = gl.where(log2_scale < 0, -1.0, 1.0)
    log2_scale = log2_scale * sign
    key = own.index(c)
    value = own.index(2 + c)
    key.store((x * sign).to(dtype))
    value.store(y)
    fence_async_shared()
    gl.thread_barrier()
    key = own_parts(key, HEAD, D, score_layout)
    value = own_parts(value, HEAD, D, score_layout)
    PARTS: gl.constexpr = product_parts(HEAD, D)
    dkey = gl.zeros([HALF, D], gl.float32, layout=out_layout)
    dvalue = gl.zeros([HALF, D], gl.float32, layout=out_layout)
    i = 0
    if piece | (edge < own_end):
        seen = visible(start, step, first, True, CAUSAL, HALF, BLOCK, score_layout) | piece
        mbarrier.wait(ready.index(0), 0)
        s = product(key, streamed, 0, BLOCK, HALF, D, score_layout)
        dp = product(value, streamed, STAGES, BLOCK, HALF, D, score_layout)
        lse = gl.expand_dims(statistics.index(0).load(columns), 0)
        s = warpgroup_mma_wait(PARTS, deps=(s,))
        p = gl.exp2(gl.where(seen, s * log2_scale - lse, float("-inf")))
        p16 = gl.convert_layout(p.to(dtype), left)
        dvalue = add_rows(dvalue, p16, streamed, STAGES, BLOCK, D)
        dp = warpgroup_mma_wait(1, deps=(dp,))
        delta = gl.expand_dims(statistics.index(STAGES).load(columns), 0)
        # Not p * (dp - delta) alone: a hidden pair's dp may be anything.
        ds = gl.where(p == 0.0, 0.0, p * (dp - delta))
        ds16 = gl.convert_layout(ds.to(dtype), left)
        dvalue = warpgroup_mma_wait(0, deps=(dvalue,))
        edge += gl.where(piece, 0, 8)
        for i in range(1, blocks):
            stage = i % STAGES
            before = (i - 1) % STAGES
            mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
            s = product(key, streamed, stage, BLOCK, HALF, D, score_layout)
            dkey = add_rows(dkey, ds16, streamed, before, BLOCK, D)
            dp = product(value, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
            lse = gl.expand_dims(statistics.index(stage).load(columns), 0)
            s, dkey = warpgroup_mma_wait(PARTS, deps=(s, dkey))
            mbarrier.arrive(free.index(before), count=1)
            p = gl.exp2(s * log2_scale - lse)
            p16 = gl.convert_layout(p.to(dtype), left)
            dvalue = add_rows(dvalue, p16, streamed, STAGES + stage, BLOCK, D)
            dp = warpgroup_mma_wait(1, deps=(dp,))
            delta = gl.expand_dims(statistics.index(STAGES + stage).load(columns), 0)
            ds16 = gl.convert_layout((p * (dp - delta)).to(dtype), left)
            dvalue = warpgroup_mma_wait(0, deps=(dvalue,))
        i = gl.maximum(blocks, 1)
        start, step, rows = half_rows(table, c, True)
        own_end, _ = half_edges(table, c, True)
        for at in range(edge, own_end, 8):
            entry = table + at
            stage = i % STAGES
            before = (i - 1) % STAGES
            mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
            s = product(key, streamed, stage, BLOCK, HALF, D, score_layout)
            dkey = add_rows(dkey, ds16, streamed, before, BLOCK, D)
            dp = product(value, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
            lse = gl.expand_dims(statistics.index(stage).load(columns), 0)
            s, dkey = warpgroup_mma_wait(PARTS, deps=(s, dkey))
            mbarrier.arrive(free.index(before), count=1)
            seen = visible(start, step, load_edge(entry), True, CAUSAL, HALF, BLOCK, score_layout)
            p = gl.exp2(gl.where(seen, s * log2_scale - lse, float("-inf")))
            p16 = gl.convert_layout(p.to(dtype), left)
            dvalue = add_rows(dvalue, p16, streamed, STAGES + stage, BLOCK, D)
            dp = warpgroup_mma_wait(1, deps=(dp,))
            delta = gl.expand_dims(statistics.index(STAGES + stage).load(columns), 0)
            ds = gl.where(p == 0.0, 0.0, p * (dp - delta))
            ds16 = gl.convert_layout(ds.to(dtype), left)
            dvalue = warpgroup_mma_wait(0, deps=(dvalue,))
            i += 1
        before = (i - 1) % STAGES
        dkey = add_rows(dkey, ds16, streamed, before, BLOCK, D)
        dkey = warpgroup_mma_wait(0, deps=(dkey,))
        mbarrier.arrive(free.index(before), count=1)

    start, step, rows = half_rows(table, c, True)
    own_end, last_edge = half_edges(table, c, True)
    for at in range(own_end, last_edge, 8):
        entry = table + at
        stage = i % STAGES
        mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
        if (gl.load(entry + 4) >> c) & 1 != 0:
            s = product(key, streamed, stage, BLOCK, HALF, D, score_layout)
            dp = product(value, streamed, STAGES + stage, BLOCK, HALF, D, score_layout)
            lse = gl.expand_dims(statistics.index(stage).load(columns), 0)
            seen = visible(start, step, load_edge(entry), True, CAUSAL, HALF, BLOCK, score_layout)
            s = warpgroup_mma_wait(PARTS, deps=(s,))
            p = gl.exp2(gl.where(seen, s * log2_scale - lse, float("-inf")))
            p16 = gl.convert_layout(p.to(dtype), left)
            dvalue = add_rows(dvalue, p16, streamed, STAGES + stage, BLOCK, D)
            dp = warpgroup_mma_wait(1, deps=(dp,))
            delta = gl.expand_dims(statistics.index(STAGES + stage).load(columns), 0)
            ds = gl.where(p == 0.0, 0.0, p * (dp - delta))
            ds16 = gl.convert_layout(ds.to(dtype), left)
            dkey = add_rows(dkey, ds16, streamed, stage, BLOCK, D)
            dkey, dvalue = warpgroup_mma_wait(0, deps=(dkey, dvalue))
        mbarrier.arrive(free.index(stage), count=1)
        i += 1
    start, step = result_rows(table, c)
    at = tile_head(table, True).to(gl.int64) * out_head
    store_half(
        dvalue_ptr + at, dvalue, start, step, rows, out_row, own.index(2 + c),
        HEAD, HALF, D, out_layout,
    )  # fmt: skip
    store_half(
        dkey_ptr + at, dkey * scale, start, step, rows, out_row, own.index(c),
        HEAD, HALF, D, out_layout,
    )  # fmt: skip


@gluon.jit
def dkey_dvalue_kernel(
    key_ptr, value_ptr, lse_ptr, delta_ptr, dkey_ptr, dvalue_ptr, table,
    key_batch, key_row, key_head, value_batch, value_row, value_head,
    out_batch, out_row, out_head, length, heads, group, log2_scale,
    q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11,
    o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11,
    VIEWS: gl.constexpr, BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr,
    HEAD: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """dk and dv, rows of d elements with the given strides, summed over the group's query heads.

    `length` is that of the queries; rows of keys may be of another sequence.
    """
    query_views = (q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11)
    dout_views = (o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11)
    dtype: gl.constexpr = q0.dtype
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([HALF, D], dtype)
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, order=[0])
    own = gl.allocate_shared_memory(dtype, [4, HALF, D], layout)
    streamed = gl.allocate_shared_memory(dtype, [2 * STAGES, 1, 1, 1, BLOCK, D], q0.layout)
    statistics = gl.allocate_shared_memory(gl.float32, [2 * STAGES, BLOCK], flat)
    # The copies arrive, and so do the statistics.
    ready = barriers(STAGES, 2)
    free = barriers(STAGES, 2)
    batch = gl.program_id(1).to(gl.int64)
    key_ptr += batch * key_batch
    value_ptr += batch * value_batch
    lse_ptr += batch * heads * length
    delta_ptr += batch * heads * length
    dkey_ptr += batch * out_batch
    dvalue_ptr += batch * out_batch
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    0, key_ptr, key_row, key_head, value_ptr, value_row, value_head,
                    dkey_ptr, dvalue_ptr, out_row, out_head,
                    table, own, streamed, statistics, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL,
                ),
            ),
            (
                _consume,
                (
                    1, key_ptr, key_row, key_head, value_ptr, value_row, value_head,
                    dkey_ptr, dvalue_ptr, out_row, out_head,
                    table, own, streamed, statistics, ready, free, log2_scale,
                    BLOCK, HALF, D, HEAD, STAGES, CAUSAL,
                ),
            ),
            (
                produce,
                (
                    query_views, dout_views, table, streamed, ready, free, group,
                    lse_ptr, delta_ptr, length, statistics,
                    VIEWS, BLOCK, STAGES, D, True, True,
                ),
            ),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
