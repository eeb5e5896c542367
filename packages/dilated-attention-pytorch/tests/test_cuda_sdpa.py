"""The `sdpa` backend on a CUDA device: `pytest -m cuda`."""

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
from dilated_attention_pytorch import DilationPattern, dilated_attention
from dilated_attention_pytorch.kernels.sdpa import calls, plan
from support import gpu_record
from support.gpu_shares import Shares, note

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Shape (b, n, heads, key/value heads, d), segments, dilations, options.
Shape = tuple[int, int, int, int, int]
SHAPES: dict[str, tuple[Shape, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "nested": ((1, 256, 4, 4, 64), (64, 128, 256), (1, 2, 4), {}),
    "ragged": ((1, 301, 4, 4, 48), (64, 100, 999), (1, 2, 4), {"is_causal": True}),
    "uneven": ((1, 301, 6, 6, 128), (100, 250), (3, 7), {}),
    "one_row": ((1, 66, 4, 4, 24), (4, 64), (4, 1), {"is_causal": True}),
    "widest": ((1, 130, 2, 2, 256), (64, 130), (1, 2), {}),
    "grouped": ((1, 301, 8, 2, 96), (64, 128, 301), (1, 2, 8), {"is_causal": True}),
    "batch": ((3, 256, 4, 2, 64), (64, 128), (1, 2), {"scale": 0.3}),
    "batch_ragged": ((2, 250, 4, 4, 64), (64, 250), (1, 4), {}),
    "documents": ((1, 301, 2, 2, 64), (64, 128), (1, 2), {"cu_seqlens": [0, 70, 70, 301]}),
}


def _arrays(shape: Shape, dtype: str) -> list[np.ndarray]:
    b, n, heads, kv_heads, d = shape
    rng = np.random.default_rng(list(shape))
    shapes = [(b, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    return [round_to(rng.standard_normal(x), dtype) for x in shapes]


def _run(
    arrays: list[np.ndarray],
    dtype: str,
    pattern: DilationPattern,
    dlse: np.ndarray | None = None,
    **options: Any,
) -> Result:
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype), device="cuda") for x in arrays)
    inputs = [x.requires_grad_() for x in inputs]
    # Freed memory holds NaN, so a row that is not written shows.
    poison = torch.full((1 << 22,), torch.nan, device="cuda")
    del poison
    out, lse = dilated_attention(*inputs, pattern, backend="sdpa", return_lse=True, **options)
    targets, directions = [out], [dout]
    if dlse is not None:
        targets.append(lse)
        directions.append(torch.tensor(dlse, dtype=torch.float32, device="cuda"))
    gradients = torch.autograd.grad(targets, inputs, directions)
    found = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


def _equals_the_oracle(name: str, dtype: str, shares: Shares, *, with_dlse: bool = False) -> None:
    shape, segments, rates, options = SHAPES[name]
    query, key, value, dout = arrays = _arrays(shape, dtype)
    pattern = OraclePattern(tuple(zip(segments, rates, strict=True)))
    gradients = {"dout": dout}
    if with_dlse:
        rng = np.random.default_rng(1)
        gradients["dlse"] = round_to(rng.standard_normal(query.shape[:3]), "float32")
    plain = naive(query, key, value, pattern, dtype, device="cuda", **gradients, **options)
    exact = reference(query, key, value, pattern, dtype, **gradients, **options)
    library = DilationPattern.longnet(segments, rates)
    actual = _run(arrays, dtype, library, gradients.get("dlse"), **options)
    note(shares, "sdpa", dtype, check_result(actual, exact, plain, dtype))


@pytest.mark.parametrize("dtype", gpu_record.DTYPES["sdpa"])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_oracle(name: str, dtype: str, shares: Shares) -> None:
    _equals_the_oracle(name, dtype, shares)


def test_the_gradient_of_lse(shares: Shares) -> None:
    _equals_the_oracle("ragged", "bfloat16", shares, with_dlse=True)


@pytest.mark.parametrize("name", ["nested", "grouped", "one_row"])
def test_flash_where_cudnn_is_not_preferred(
    name: str, monkeypatch: pytest.MonkeyPatch, shares: Shares
) -> None:
    monkeypatch.setattr(calls, "has_cudnn", lambda device: False)
    calls.library.cache_clear()
    _equals_the_oracle(name, "bfloat16", shares)
    calls.library.cache_clear()


def test_pieces(monkeypatch: pytest.MonkeyPatch, shares: Shares) -> None:
    monkeypatch.setitem(plan.PIECE_ELEMENTS, "cuda", 1)
    for name in ("batch", "documents"):
        _equals_the_oracle(name, "float16", shares)


@pytest.mark.parametrize("packed", [False, True])
def test_library_kernels_and_no_copies(packed: bool) -> None:
    pattern = DilationPattern.longnet([64, 128, 256], [1, 2, 4])
    projected = torch.randn(1, 512, 12, 64, dtype=torch.bfloat16, device="cuda")
    inputs = [x if packed else x.contiguous() for x in projected.split(4, 2)]
    inputs = [x.detach().requires_grad_() for x in inputs]
    dout = torch.randn(1, 512, 4, 64, dtype=torch.bfloat16, device="cuda")

    def both() -> None:
        out = dilated_attention(*inputs, pattern, backend="sdpa")
        torch.autograd.grad(out, inputs, dout)

    both()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
    ) as profile:
        both()
        torch.cuda.synchronize()
    kernels = {event.key.lower(): event.count for event in profile.key_averages()}
    assert kernels["merge_kernel"] == 1
    assert kernels["spread_kernel"] == 1
    assert kernels["sum_kernel"] == 3
    attention = sum(n for name, n in kernels.items() if "fprop" in name or "flash_fwd" in name)
    # One call for the branch of one offset, two for that of two; the four offsets of the last
    # branch have one head each and share a call.
    assert attention == 1 + 2 + 1
    moving = ("copy", "gather", "index", "elementwise")
    assert not [name for name in kernels if any(word in name for word in moving)], kernels
