"""Device functions that the forward and backward kernels share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(pointers, columns, HEAD: tl.constexpr, BLOCK_D: tl.constexpr, valid):
    """(rows, BLOCK_D) from row pointers; columns past the head dimension and invalid rows are 0."""
    at = pointers[:, None] + columns[None, :]
    if HEAD == BLOCK_D:
        return tl.load(at, mask=valid[:, None], other=0.0)
    return tl.load(at, mask=valid[:, None] & (columns[None, :] < HEAD), other=0.0)


@triton.jit
def load_all_rows(pointers, columns, HEAD: tl.constexpr, BLOCK_D: tl.constexpr):
    """As `load_rows`, all rows valid."""
    at = pointers[:, None] + columns[None, :]
    if HEAD == BLOCK_D:
        return tl.load(at)
    return tl.load(at, mask=columns[None, :] < HEAD, other=0.0)


@triton.jit
def add_product(acc, left, right, PRECISION: tl.constexpr):
    """acc + left right.

    Multipliers of float32 and float64 add one product at a time; over thousands of rows that costs
    digits, so there a block's products are added up by themselves. Triton puts the accumulator
    back into a product that may be exact; one of limited length it leaves alone.
    """
    if left.dtype.primitive_bitwidth >= 32:
        length: tl.constexpr = left.shape[1]
        block = tl.dot(left, right, input_precision=PRECISION, max_num_imprecise_acc=length)
        return acc + block
    return tl.dot(left, right, acc, input_precision=PRECISION)


@triton.jit
def visible_pairs(
    query_positions,
    key_positions,
    inside,
    document,
    segment_length,
    CAUSAL: tl.constexpr,
    SEGMENTS: tl.constexpr,
):
    """`inside`, where the pair shares a segment of the document and respects causality too."""
    visible = inside
    if SEGMENTS:
        query_segment = (query_positions - document) // segment_length
        visible = visible & (query_segment == (key_positions - document) // segment_length)
    if CAUSAL:
        visible = visible & (key_positions <= query_positions)
    return visible


@triton.jit
def dropout_factor(seed, threshold, kept_scale, sequence, branch, query_positions, key_numbers):
    """D of Philox 4x32-10 in global indices, for broadcastable query positions and key numbers.

    counter = (p mod 2^32, t // 4, batch * H + h, branch * 2^16 + p // 2^32), word t mod 4.
    """
    positions, numbers = tl.broadcast(query_positions.to(tl.int64), key_numbers)
    zero = positions * 0
    w0, w1, w2, w3 = tl.philox(
        seed,
        (positions & 0xFFFFFFFF).to(tl.uint32),
        (numbers // 4).to(tl.uint32),
        (zero + sequence).to(tl.uint32),
        ((positions >> 32) + (branch << 16)).to(tl.uint32),
    )
    word = numbers % 4
    low = tl.where(word == 0, w0, w1)
    high = tl.where(word == 2, w2, w3)
    chosen = tl.where(word < 2, low, high)
    return tl.where(chosen.to(tl.int64) >= threshold, kept_scale, 0.0)
