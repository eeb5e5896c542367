"""What the three kernels share: the table, own rows, results, and the producer.

A program is a tile: two halves of HALF rows, one for each of two consumer warpgroups, and a
producer warpgroup. The producer copies blocks of BLOCK rows of the other side (keys and values, or
queries and dout) into a ring of STAGES buffers with TMA; barriers `ready` and `free` guard each.

The table is one array (`table.pack`): a record of 32 numbers for each program, then pieces and
edges of `schedule/streams.py`, 8 numbers each. A record holds the head, first row and number of
rows of each half, their step; where in the table the tile's pieces and edges begin and end; for
each half the end of those of its edges that come before the first that is not for it, the end of
what it meets as pieces, its first edge after that, and the number of blocks in the former; and
where the gradients of key rows go: the first row of each half, and their step. A half meets the
edges that come first and hide nothing from it as pieces, without masks. All pairs of a block count
equally often; log2 of that is added to the scores. What is needed again late is read again late:
registers are what limits the consumers.

Beside its blocks a program takes the time of about three, to begin and to end. So what it waits for
first is asked for at once, and results leave in whole rows.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """COUNT barriers of which each phase ends with ARRIVALS arrivals."""
    made = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(made.index(i), count=ARRIVALS)
    return made


@gluon.jit
def record(table):
    """This program's record."""
    return table + 32 * gl.program_id(0)


@gluon.jit
def tile_head(table, LATE: gl.constexpr):
    """The head of this program's rows; LATE: read anew, so that no register keeps it."""
    return gl.load(record(table), volatile=LATE)


@gluon.jit
def half_rows(table, c: gl.constexpr, LATE: gl.constexpr):
    """(first position, step, number) of the rows of half c; LATE: read anew."""
    at = record(table)
    return (
        gl.load(at + 1 + 2 * c, volatile=LATE),
        gl.load(at + 5, volatile=LATE),
        gl.load(at + 2 + 2 * c, volatile=LATE),
    )


@gluon.jit
def tile_pieces(table):
    """(begin, end) of this program's pieces in the table."""
    return gl.load(record(table) + 6), gl.load(record(table) + 7)


@gluon.jit
def tile_edges(table):
    """(begin, end) of this program's edges in the table."""
    return gl.load(record(table) + 8), gl.load(record(table) + 9)


@gluon.jit
def half_pieces(table, c: gl.constexpr):
    """(begin, end, blocks) of what half c meets as pieces."""
    at = record(table)
    return gl.load(at + 6), gl.load(at + 12 + c), gl.load(at + 16 + c)


@gluon.jit
def first_edge(table, c: gl.constexpr):
    """The first of the edges of half c after these."""
    return gl.load(record(table) + 14 + c)


@gluon.jit
def half_edges(table, c: gl.constexpr, LATE: gl.constexpr):
    """(end, last): from `end` on, up to `last`, edges are those of both halves by turns."""
    at = record(table)
    return gl.load(at + 10 + c, volatile=LATE), gl.load(at + 9, volatile=LATE)


@gluon.jit
def result_rows(table, c: gl.constexpr):
    """(first, step) of the rows of half c where its gradients go."""
    at = record(table)
    return gl.load(at + 18 + c), gl.load(at + 20)


@gluon.jit
def load_weight(entry, column: gl.constexpr):
    """log2 of how often the pairs of an entry count."""
    return gl.log2(gl.load(entry + column).to(gl.float32))


@gluon.constexpr_function
def by_rows(D):
    """Layout of 16-bit rows of D columns in which a thread has 16 bytes of a row."""
    return gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])


@gluon.jit
def _places(
    base, start, step, rows, row_stride,
    HEAD: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """(pointers, which exist) of a half's evenly spaced rows."""
    row = gl.arange(0, HALF, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, D, layout=gl.SliceLayout(0, layout))
    at = (start + row * step).to(gl.int64) * row_stride
    inside = gl.expand_dims(row < rows, 1) & gl.expand_dims(column < HEAD, 0)
    return base + gl.expand_dims(at, 1) + gl.expand_dims(column, 0), inside


@gluon.jit
def load_half(
    base, start, step, rows, row_stride,
    HEAD: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Rows of a half; columns past HEAD and rows past `rows` are 0."""
    pointers, inside = _places(base, start, step, rows, row_stride, HEAD, HALF, D, layout)
    return gl.load(pointers, mask=inside, other=0.0)


@gluon.jit
def store_half(
    base, x, start, step, rows, row_stride, shared,
    HEAD: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """Rows of a half to `base`, HEAD columns of each.

    16-bit results go through `shared`, whose rows nothing needs any more.
    """
    if base.dtype.element_ty == shared.dtype:
        wide: gl.constexpr = by_rows(D)
        shared.store(x.to(shared.dtype))
        gl.thread_barrier()
        pointers, inside = _places(base, start, step, rows, row_stride, HEAD, HALF, D, wide)
        gl.store(pointers, shared.load(wide), mask=inside)
    else:
        pointers, inside = _places(base, start, step, rows, row_stride, HEAD, HALF, D, layout)
        gl.store(pointers, x.to(base.dtype.element_ty), mask=inside)


@gluon.jit
def own_parts(own, HEAD: gl.constexpr, D: gl.constexpr, layout: gl.constexpr):
    """Own rows as `product` takes them.

    Narrow ones are in registers, for products that read both sides from shared memory wait for it;
    of 64 columns that hold at most 48, the last 16 are left out.
    """
    left: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=layout, k_width=2)
    if D > 64:
        return (own,)
    elif HEAD > 48:
        return (own.load(left),)
    else:
        return own.slice(0, 32, 1).load(left), own.slice(32, 16, 1).load(left)


@gluon.constexpr_function
def product_parts(HEAD, D):
    """Commands to the tensor cores that a product takes."""
    return 2 if D <= 64 and HEAD <= 48 else 1


@gluon.jit
def product(
    own, streamed, number, BLOCK: gl.constexpr, HALF: gl.constexpr, D: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """Products of own rows, in parts of their columns, with those of a buffer, under way."""
    other = streamed.index(number).reshape([BLOCK, D]).permute([1, 0])
    zero = gl.zeros([HALF, BLOCK], gl.float32, layout=layout)
    if len(own) == 1:
        return warpgroup_mma(own[0], other, zero, use_acc=False, is_async=True)
    else:
        s = warpgroup_mma(own[0], other.slice(0, 32, 0), zero, use_acc=False, is_async=True)
        return warpgroup_mma(own[1], other.slice(32, 16, 0), s, is_async=True)


@gluon.jit
def add_rows(acc, left16, streamed, number, BLOCK: gl.constexpr, D: gl.constexpr):
    """Weighted rows of a buffer added to the accumulator, under way."""
    return warpgroup_mma(left16, streamed.index(number).reshape([BLOCK, D]), acc, is_async=True)


@gluon.jit
def load_edge(entry):
    """What `visible` needs of an edge: first position, rate, begin and end, which halves."""
    return (
        gl.load(entry), gl.load(entry + 1), gl.load(entry + 5), gl.load(entry + 6),
        gl.load(entry + 4),
    )  # fmt: skip


@gluon.jit
def visible(
    start, step, edge,
    ROWS_ARE_KEYS: gl.constexpr, CAUSAL: gl.constexpr, HALF: gl.constexpr, BLOCK: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """(HALF, BLOCK): which pairs of own rows and the block of an edge count.

    Causality hides nothing of one whose bit 2 is set.
    """
    first, rate, begin, end, halves = edge
    column = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, layout))
    # One comparison says both: numbers below 0 are large without a sign.
    place = end - 1 - first - column * rate if ROWS_ARE_KEYS else first - begin + column * rate
    count = end - begin
    if CAUSAL:
        row = gl.arange(0, HALF, layout=gl.SliceLayout(1, layout))
        free = ((halves >> 2) & 1) << 30
        start += -free if ROWS_ARE_KEYS else free
        own = gl.expand_dims(start + row * step, 1)
        causal = end - own if ROWS_ARE_KEYS else own + 1 - begin
        count = gl.maximum(gl.minimum(causal, count), 0)
    return gl.expand_dims(place, 0).to(gl.uint32) < count.to(gl.uint32)


@gluon.jit
def _load_statistics(position, rate, lse_ptr, delta_ptr, length, BLOCK: gl.constexpr):
    """lse and delta of a block of queries."""
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    # Rows past the end count for nothing, but a NaN would spread.
    at = gl.minimum(position + gl.arange(0, BLOCK, layout=layout) * rate, length - 1)
    return gl.load(lse_ptr + at), gl.load(delta_ptr + at)


@gluon.jit
def _store_statistics(lse, delta, bias, statistics, ready, i, STAGES: gl.constexpr):
    """lse less the logarithm of the weight, and delta, of block i."""
    statistics.index(i % STAGES).store(lse - bias)
    statistics.index(STAGES + i % STAGES).store(delta)
    mbarrier.arrive(ready.index(i % STAGES), count=1)


@gluon.jit
def _copy_block(
    x_view, y_view, i, batch, head, residue, row, streamed, ready, free,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, D: gl.constexpr, JOINT: gl.constexpr,
):  # fmt: skip
    """One block of both tensors into stage i; JOINT: one pair of barriers guards both."""
    stage = i % STAGES
    if JOINT:
        mbarrier.expect(ready.index(stage), 2 * BLOCK * D * 2)
        tma.async_copy_global_to_shared(
            x_view, [batch, head, residue, row, 0], ready.index(stage), streamed.index(stage)
        )
        tma.async_copy_global_to_shared(
            y_view, [batch, head, residue, row, 0], ready.index(stage),
            streamed.index(STAGES + stage),
        )  # fmt: skip
    else:
        turn = ((i // STAGES) & 1) ^ 1
        mbarrier.wait(free.index(stage), turn)
        mbarrier.expect(ready.index(stage), BLOCK * D * 2)
        tma.async_copy_global_to_shared(
            x_view, [batch, head, residue, row, 0], ready.index(stage), streamed.index(stage)
        )
        mbarrier.wait(free.index(STAGES + stage), turn)
        mbarrier.expect(ready.index(STAGES + stage), BLOCK * D * 2)
        tma.async_copy_global_to_shared(
            y_view, [batch, head, residue, row, 0], ready.index(STAGES + stage),
            streamed.index(STAGES + stage),
        )  # fmt: skip


@gluon.jit
def produce(
    x_views, y_views, table, streamed, ready, free, group,
    lse_ptr, delta_ptr, length, statistics,
    VIEWS: gl.constexpr, BLOCK: gl.constexpr, STAGES: gl.constexpr, D: gl.constexpr,
    JOINT: gl.constexpr, STATISTICS: gl.constexpr,
):  # fmt: skip
    """Stream a tile's pieces, then its edges.

    A query head's keys are those of its group; with STATISTICS the other side is the query heads
    of a group, and rows of lse and delta, (heads, length) of the batch entry, come along.
    """
    batch = gl.program_id(1)
    head = tile_head(table, False)
    head = head * group if STATISTICS else head // group
    i = 0
    begin, end = tile_pieces(table)
    for at in range(begin, end, 8):
        entry = table + at
        blocks = gl.load(entry)
        view = gl.load(entry + 2)
        member = head + gl.load(entry + 3)
        residue = gl.load(entry + 4)
        row = gl.load(entry + 5)
        if STATISTICS:
            # Those of a block are under way while the one before waits for its place.
            rate = gl.load(entry + 6)
            bias = load_weight(entry, 1)
            lse_at = lse_ptr + member.to(gl.int64) * length
            delta_at = delta_ptr + member.to(gl.int64) * length
            lse, delta = _load_statistics(
                residue + row * rate, rate, lse_at, delta_at, length, BLOCK
            )
        for number in gl.static_range(VIEWS):
            for _ in range(0, gl.where(view == number, blocks, 0)):
                if JOINT:
                    mbarrier.wait(free.index(i % STAGES), ((i // STAGES) & 1) ^ 1)
                _copy_block(
                    x_views[number], y_views[number], i, batch, member, residue, row, streamed,
                    ready, free, BLOCK, STAGES, D, JOINT,
                )  # fmt: skip
                row += BLOCK
                if STATISTICS:
                    _store_statistics(lse, delta, bias, statistics, ready, i, STAGES)
                    lse, delta = _load_statistics(
                        residue + row * rate, rate, lse_at, delta_at, length, BLOCK
                    )
                i += 1
    begin, end = tile_edges(table)
    for at in range(begin, end, 8):
        entry = table + at
        first = gl.load(entry)
        rate = gl.load(entry + 1)
        view = gl.load(entry + 2)
        member = head + gl.load(entry + 7)
        if JOINT:
            mbarrier.wait(free.index(i % STAGES), ((i // STAGES) & 1) ^ 1)
        for number in gl.static_range(VIEWS):
            if view == number:
                _copy_block(
                    x_views[number], y_views[number], i, batch, member, first % rate,
                    first // rate, streamed, ready, free, BLOCK, STAGES, D, JOINT,
                )  # fmt: skip
        if STATISTICS:
            base = member.to(gl.int64) * length
            lse, delta = _load_statistics(
                first, rate, lse_ptr + base, delta_ptr + base, length, BLOCK
            )
            _store_statistics(lse, delta, load_weight(entry, 3), statistics, ready, i, STAGES)
        i += 1
