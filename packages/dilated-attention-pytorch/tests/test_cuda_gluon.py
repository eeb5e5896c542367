"""The Hopper kernels against the oracle, on devices that have them: `pytest -m cuda`."""

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
from dilated_attention_pytorch import BackendError, DilationPattern, dilated_attention
from support import gpu_record
from support.gpu_shares import Shares, note

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="no CUDA device of compute capability 9.0")

# name: (n, (w, r) of the branches, rule, H, H_kv, d, batch, options)
Case = tuple[int, tuple[tuple[int, int], ...], str, int, int, int, int, dict[str, Any]]
LADDER = ((256, 1), (512, 2), (1024, 4))
CASES: dict[str, Case] = {
    # Whole tiles: no masks, each shared key once.
    "ladder": (2048, LADDER, "longnet", 4, 4, 128, 1, {}),
    "causal": (2048, LADDER, "longnet", 4, 4, 128, 1, {"is_causal": True}),
    "narrow": (2048, LADDER, "longnet", 4, 4, 64, 1, {}),
    # Ragged: r divides neither w nor n, segments do not nest, weights of period 3.
    "ragged": (1501, ((300, 1), (515, 3), (1201, 6)), "longnet", 3, 3, 48, 2, {}),
    "ragged causal": (
        1501,
        ((300, 1), (515, 3), (1201, 6)),
        *("longnet", 3, 3, 48, 2),
        {"is_causal": True},
    ),
    "grouped": (1300, ((256, 2), (1300, 4)), "longnet", 4, 2, 96, 2, {"scale": 0.3}),
    # A negative scale goes into the own rows; each of these offsets leaves rows uncovered.
    "negative scale": (
        1300,
        ((256, 2), (1300, 3)),
        *("torchscale", 4, 1, 32, 1),
        {"scale": -0.2, "is_causal": True},
    ),
    "documents": (
        1500,
        ((256, 1), (700, 2)),
        *("longnet", 4, 2, 64, 1),
        {"cu_seqlens": [0, 512, 512, 1500]},
    ),
    "short": (77, ((256, 1), (512, 2)), "longnet", 2, 2, 64, 2, {"is_causal": True}),
    # Queries times PEAKS: a small dS as the difference of large numbers.
    "peaky": (2048, LADDER, "longnet", 4, 4, 128, 1, {}),
    "one-hot causal": (2048, LADDER, "longnet", 4, 4, 64, 1, {"is_causal": True}),
}
PEAKS = {"peaky": 8.0, "one-hot causal": 32.0}
NAMES = ("out", "lse", "dq", "dk", "dv")


def _arrays(case: str, dtype: str, seed: int = 0) -> list[np.ndarray]:
    n, _, _, heads, kv_heads, d, batch, _ = CASES[case]
    rng = np.random.default_rng(seed)
    shapes = [(batch, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    arrays[0] *= PEAKS.get(case, 1.0)
    return [round_to(x, dtype) for x in arrays]


def _run(case: str, arrays: list[np.ndarray], dtype: str, backend: str = "gluon") -> Result:
    _, branches, rule, _, _, _, _, options = CASES[case]
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype), device="cuda") for x in arrays)
    inputs = [x.requires_grad_() for x in inputs]
    make = {"longnet": DilationPattern.longnet, "torchscale": DilationPattern.torchscale}[rule]
    pattern = make(*zip(*branches, strict=True))
    out, lse = dilated_attention(*inputs, pattern, backend=backend, return_lse=True, **options)
    gradients = torch.autograd.grad(out, inputs, dout)
    found = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


@needs_hopper
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", gpu_record.DTYPES["gluon"])
@pytest.mark.parametrize("case", list(CASES))
def test_equals_the_oracle(case: str, dtype: str, shares: Shares) -> None:
    _, branches, rule, _, _, _, _, options = CASES[case]
    query, key, value, dout = arrays = _arrays(case, dtype)
    pattern = OraclePattern(branches, rule)
    plain = naive(query, key, value, pattern, dtype, dout=dout, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, dout=dout, **options)
    note(shares, "gluon", dtype, check_result(_run(case, arrays, dtype), exact, plain, dtype))


@needs_hopper
@pytest.mark.cuda
@pytest.mark.parametrize("case", ["ladder", "ragged causal", "documents"])
def test_bits_repeat_and_every_row_is_written(case: str) -> None:
    arrays = _arrays(case, "bfloat16")
    first = _run(case, arrays, "bfloat16")
    # Freed memory holds NaN now, so a row that is not written shows.
    poison = torch.full((1 << 22,), torch.nan, device="cuda")
    del poison
    again = _run(case, arrays, "bfloat16")
    for name in NAMES:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.isnan(getattr(again, name)).any()


@needs_hopper
@pytest.mark.cuda
@pytest.mark.parametrize("where", ["query", "key", "value", "dout"])
def test_a_nan_stays_in_its_segment(where: str) -> None:
    """One segment of 256 rows holds NaN; every other row is what it was, bit for bit."""
    n, w, heads, d = 1100, 256, 2, 64
    generator = torch.Generator("cuda").manual_seed(5)
    names = ("query", "key", "value", "dout")
    given = {
        name: torch.randn(1, n, heads, d, device="cuda", generator=generator).bfloat16()
        for name in names
    }
    pattern = DilationPattern.longnet([w], [2])

    def compute() -> list[torch.Tensor]:
        inputs = [given[name].clone().requires_grad_() for name in names[:3]]
        out = dilated_attention(*inputs, pattern, backend="gluon")
        return [out, *torch.autograd.grad(out, inputs, given["dout"])]

    clean = compute()
    given[where][:, w : 2 * w] = torch.nan
    for found, wanted in zip(compute(), clean, strict=True):
        for rows in (slice(0, w), slice(2 * w, n)):
            assert torch.equal(found[:, rows], wanted[:, rows])


@needs_hopper
@pytest.mark.cuda
def test_addresses_beyond_two_to_the_31() -> None:
    n, heads, d = 1_100_000, 16, 128
    pattern = DilationPattern.longnet([256], [1])
    assert n * heads * d > 2**31
    query, key, value = (
        torch.randn(1, n, heads, d, dtype=torch.bfloat16, device="cuda") for _ in range(3)
    )
    out = dilated_attention(query, key, value, pattern, backend="gluon")
    other = dilated_attention(query, key, value, pattern, backend="triton")
    scale = other.abs().amax(dim=(1, 3), keepdim=True)
    # Both round out to bfloat16 and P to bfloat16 before the product.
    assert ((out - other).abs() <= 4 * 2.0**-8 * scale).all()


@needs_hopper
@pytest.mark.cuda
def test_what_it_cannot_serve_it_says() -> None:
    q = torch.randn(1, 600, 2, 64, device="cuda", dtype=torch.bfloat16)
    pattern = DilationPattern.longnet([64, 600], [1, 2])
    with pytest.raises(BackendError, match="64 rows of one residue"):
        dilated_attention(q, q, q, pattern, backend="gluon")
    whole = DilationPattern.longnet([600], [1])
    with pytest.raises(BackendError, match="float16 and bfloat16"):
        dilated_attention(*(x.float() for x in (q, q, q)), whole, backend="gluon")
    mask = torch.ones(1, 600, dtype=torch.bool, device="cuda")
    with pytest.raises(BackendError, match="no key mask"):
        dilated_attention(q, q, q, whole, key_mask=mask, backend="gluon")
    with pytest.raises(BackendError, match="no dropout"):
        dilated_attention(q, q, q, whole, dropout_p=0.1, backend="gluon")


@needs_hopper
@pytest.mark.cuda
def test_one_launch_forward_and_three_backward() -> None:
    arrays = _arrays("ladder", "bfloat16")
    _run("ladder", arrays, "bfloat16", backend="auto")
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
    ) as profile:
        _run("ladder", arrays, "bfloat16", backend="auto")
    counts = {event.key: event.count for event in profile.key_averages()}
    ours = {"forward_kernel", "prepare_kernel", "dquery_kernel", "dkey_dvalue_kernel"}
    assert {name: counts.get(name) for name in ours} == dict.fromkeys(ours, 1)
