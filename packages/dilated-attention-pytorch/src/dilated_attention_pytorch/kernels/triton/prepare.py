"""What the backward kernels need of every query row: lse in base 2, and delta.

    lse2 = lse log2(e), +inf where lse = -inf, which makes the row's weights 0
    delta = <dout, out> - dlse

In torchscale's modes both come for every lane: lse2 is +inf where the lane's row is empty, and with
a detached mix delta is <dout, out of the lane>.

Both are laid out (b, H, n), so that a program reads rows of one head side by side. dout and out are
read once, in their own dtype; nothing of their size is made.
"""

# Device code has Triton's types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launcher import Launcher

_ROWS = 64


@triton.jit
def prepare_kernel(
    dout_ptr, out_ptr, lse_ptr, dlse_ptr, lane_lse_ptr, lse2_ptr, delta_ptr,
    dout_batch, dout_row, dout_head, out_lane, out_batch, out_row, out_head,
    lse_batch, lse_row, lse_head, dlse_batch, dlse_row, dlse_head,
    lane_lse_lane, lane_lse_batch, lane_lse_row, lane_lse_head, batches, length, heads,
    DLSE: tl.constexpr, LANES: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of one head; heads run fastest, because their rows lie side by side."""
    program = tl.program_id(0).to(tl.int64)
    head = program % heads
    tiles = tl.cdiv(length, ROWS)
    row = program // heads % tiles * ROWS + tl.arange(0, ROWS)
    batch = program // heads // tiles % batches
    lane = program // heads // tiles // batches
    valid = row < length
    columns = tl.arange(0, BLOCK_D)
    inside = valid[:, None] & (columns[None, :] < HEAD)
    dout_at = dout_ptr + batch * dout_batch + head * dout_head + row * dout_row
    out_at = out_ptr + lane * out_lane + batch * out_batch + head * out_head + row * out_row
    dout = tl.load(dout_at[:, None] + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    out = tl.load(out_at[:, None] + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    delta = tl.sum(dout * out, 1)
    lse_at = lse_ptr + batch * lse_batch + head * lse_head + row * lse_row
    lse = tl.load(lse_at, mask=valid, other=0.0)
    empty = lse == float("-inf")
    if LANES:
        lane_at = lane_lse_ptr + lane * lane_lse_lane + batch * lane_lse_batch
        lane_at += head * lane_lse_head + row * lane_lse_row
        empty = tl.load(lane_at, mask=valid, other=0.0) == float("-inf")
    if DLSE:
        dlse_at = dlse_ptr + batch * dlse_batch + head * dlse_head + row * dlse_row
        delta -= tl.load(dlse_at, mask=valid, other=0.0)
    at = ((lane * batches + batch) * heads + head) * length + row
    # A row that sees no key has no gradient, whatever dlse holds there.
    tl.store(delta_ptr + at, tl.where(empty, 0.0, delta), mask=valid)
    tl.store(lse2_ptr + at, tl.where(empty, float("inf"), lse * 1.4426950408889634), mask=valid)


@lru_cache(maxsize=64)
def _launcher(
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
    strides: tuple[tuple[int, ...], ...],
    dlse: bool,
    lanes: int,
) -> Launcher:
    """The kernel for (b, n, H, d) and strides without that of d; kept by device and dtypes."""
    del dtypes, device
    b, n, heads, d = shape
    numbers = (*(x for some in strides for x in some), b, n, heads, dlse, lanes > 0, d)
    return Launcher(
        prepare_kernel,
        (max(1, lanes) * b * heads * triton.cdiv(n, _ROWS), 1, 1),
        (),
        (*numbers, triton.next_power_of_2(d), _ROWS),
        warps=4,
        stages=1,
    )


def prepare(
    dout: Tensor,
    dlse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    lane_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(lse2, delta), both (b, H, n) in float32 and contiguous, one launch.

    Args:
        dout: (b, n, H, d), any strides but a contiguous head dimension; n >= 1.
        dlse: (b, n, H) float32 of any strides, or None.
        out: (b, n, H, d), any strides but a contiguous head dimension; with `lane_lse` also
            (lanes, b, n, H, d).
        lse: (b, n, H) float32 of any strides, natural logarithm.
        lane_lse: (lanes, b, n, H) float32; the results are (lanes, b, H, n) then.
    """
    b, n, heads, d = dout.shape
    lanes = 0 if lane_lse is None else lane_lse.shape[0]
    shape = (2, lanes, b, heads, n) if lanes else (2, b, heads, n)
    lse2, delta = torch.empty(shape, dtype=torch.float32, device=out.device)
    assert (dout.stride(3) == 1 and out.stride(-1) == 1) or d == 1
    some_dlse = lse if dlse is None else dlse
    some_lanes = lse[None] if lane_lse is None else lane_lse
    out_strides = out.stride()[:-1] if out.dim() == 5 else (0, *out.stride()[:-1])
    launch = _launcher(
        (b, n, heads, d),
        (dout.dtype, out.dtype),
        out.device,
        (dout.stride()[:3], out_strides, lse.stride(), some_dlse.stride(), some_lanes.stride()),
        dlse is not None,
        lanes,
    )
    launch(dout, out, lse, some_dlse, some_lanes, lse2, delta)
    return lse2, delta
