"""Rings on the Hopper kernels against the oracle, on devices that have them: `pytest -m cuda`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern as OraclePattern
from dilated_attention_oracle import Result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.tolerance import check_result
from dilated_attention_pytorch import DilationPattern, ring_dilated_attention
from dilated_attention_pytorch.kernels.gluon import MOST_VIEWS
from dilated_attention_pytorch.kernels.gluon.blocks import HALF, backward_blocks, forward_blocks
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.ring.tiled import tiled_plan
from dilated_attention_pytorch.schedule import Problem, plan_rank
from support import gpu_record
from support.gpu_shares import Shares, note

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="no CUDA device of compute capability 9.0")

# name: (n, (w, r) of the branches, H, H_kv, d, batch, R, order, buffers, causal, late tiles wait)
CASES: dict[str, tuple[Any, ...]] = {
    "waits": (2048, ((256, 1), (2048, 8)), 8, 8, 64, 1, 2, "contiguous", 8, False, True),
    "waits, causal": (2048, ((256, 1), (2048, 8)), 4, 2, 128, 1, 2, "contiguous", 8, True, True),
    "adds": (1536, ((1536, 1),), 2, 2, 128, 1, 3, "contiguous", 2, False, False),
    "adds, causal": (2048, ((256, 1), (2048, 1)), 2, 1, 64, 1, 4, "contiguous", 2, True, False),
    "zigzag": (2048, ((2048, 1),), 2, 2, 64, 1, 2, "zigzag", 2, True, False),
    "batch": (2048, ((256, 1), (2048, 4)), 4, 2, 48, 2, 4, "contiguous", 8, False, False),
}
NAMES = ("out", "lse", "dq", "dk", "dv")


def _arrays(name: str, dtype: str) -> list[np.ndarray]:
    n, _, heads, kv_heads, d, batch, *_ = CASES[name]
    rng = np.random.default_rng(11)
    shapes = [(batch, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    return [round_to(rng.standard_normal(shape), dtype) for shape in shapes]


def _run(name: str, arrays: list[np.ndarray], dtype: str) -> Result:
    _, branches, *_, size, order, buffers, causal, _ = CASES[name]
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype), device="cuda") for x in arrays)
    inputs = [x.requires_grad_() for x in inputs]
    out, lse = ring_dilated_attention(
        *inputs,
        DilationPattern.longnet(*zip(*branches, strict=True)),
        ring_size=size,
        order=order,
        buffer_shards=buffers,
        is_causal=causal,
        backend="gluon",
        return_lse=True,
    )
    gradients = torch.autograd.grad(out, inputs, dout)
    found = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


def _waits(name: str) -> bool:
    """Whether the tiles that see received rows wait for them; all ranks have tiles."""
    n, branches, heads, kv_heads, d, _, size, order, buffers, causal, _ = CASES[name]
    pattern = DilationPattern.longnet(*zip(*branches, strict=True))
    problem = Problem(pattern, n, heads, kv_heads, causal)
    layout = make_layout(n, size, order)
    blocks = forward_blocks(d).block, backward_blocks(d).block
    waits = []
    for rank in range(size):
        plan = plan_rank(problem, layout, rank, buffers)
        tiles = tiled_plan(plan, HALF, *blocks, MOST_VIEWS)
        assert tiles is not None
        waits.append(tiles.forward.late is not None)
    return any(waits)


@needs_hopper
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", gpu_record.DTYPES["gluon_ring"])
@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_oracle(name: str, dtype: str, shares: Shares) -> None:
    *_, causal, waits = CASES[name]
    assert _waits(name) is waits
    query, key, value, dout = arrays = _arrays(name, dtype)
    pattern = OraclePattern(CASES[name][1])
    options = {"dout": dout, "is_causal": causal}
    plain = naive(query, key, value, pattern, dtype, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, **options)
    note(shares, "gluon_ring", dtype, check_result(_run(name, arrays, dtype), exact, plain, dtype))


@needs_hopper
@pytest.mark.cuda
@pytest.mark.parametrize("name", ["waits, causal", "adds, causal"])
def test_bits_repeat_and_every_row_is_written(name: str) -> None:
    arrays = _arrays(name, "bfloat16")
    first = _run(name, arrays, "bfloat16")
    # Freed memory holds NaN now, so a row that is not written shows.
    poison = torch.full((1 << 22,), torch.nan, device="cuda")
    del poison
    again = _run(name, arrays, "bfloat16")
    for x in NAMES:
        np.testing.assert_array_equal(getattr(first, x), getattr(again, x))
        assert not np.isnan(getattr(again, x)).any()


@needs_hopper
@pytest.mark.cuda
def test_a_nan_of_another_rank_stays_with_the_rows_that_see_it() -> None:
    """NaN in the last key of rank 1 reaches the rows of that residue alone, of both ranks."""
    arrays = _arrays("waits", "bfloat16")
    clean = _run("waits", arrays, "bfloat16")
    arrays[1][:, -1] = np.nan
    dirty = _run("waits", arrays, "bfloat16")
    n, heads = clean.lse.shape[1:]
    for head in range(heads):
        rows = np.arange(n)
        seen = ((n - 1) % 8 == head) & (rows % 8 == head)
        # Its own segment of the first branch sees it too.
        seen |= rows >= n - 256
        np.testing.assert_array_equal(clean.out[:, ~seen, head], dirty.out[:, ~seen, head])
        assert np.isnan(dirty.out[:, seen, head]).all()
