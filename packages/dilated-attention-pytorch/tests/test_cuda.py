"""The operator on CUDA devices: `pytest -m cuda`, and over NCCL `pytest -m multigpu`."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern as OraclePattern
from dilated_attention_oracle import Result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.tolerance import check, check_result
from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
    shard,
    unshard,
)
from support import gpu_record
from support.gpu_shares import Shares, note

SEGMENTS, RATES = (24, 50, 400), (1, 2, 3)
LONGNET = DilationPattern.longnet(SEGMENTS, RATES)
CASES: dict[str, dict[str, Any]] = {
    "bidirectional": {},
    "causal": {"is_causal": True},
    "dropout": {"dropout_p": 0.3, "seed": 11},
    "documents": {"cu_seqlens": [0, 70, 70, 301]},
    "key_mask": {"key_mask": np.arange(301)[None] % 7 != 3},
    "all": {
        "is_causal": True,
        "dropout_p": 0.2,
        "seed": 2**63 + 5,
        "cu_seqlens": [0, 133, 301],
        "key_mask": np.arange(301)[None] % 5 != 1,
        "scale": 0.3,
    },
}
# (heads, key/value heads, head dimension), and segments that r does not divide.
SHAPES = {"plain": (6, 6, 64), "grouped": (6, 2, 48), "wide": (2, 1, 200)}


def _arrays(n: int, heads: int, kv_heads: int, d: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, n, h, d)) for h in (heads, kv_heads, kv_heads, heads)]


def _run(
    arrays: list[np.ndarray], dtype: str, pattern: DilationPattern = LONGNET, **options: Any
) -> Result:
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype), device="cuda") for x in arrays)
    inputs = [x.requires_grad_() for x in inputs]
    if "key_mask" in options:
        options = options | {"key_mask": torch.tensor(options["key_mask"], device="cuda")}
    out, lse = ring_dilated_attention(*inputs, pattern, return_lse=True, **options)
    gradients = torch.autograd.grad(out, inputs, dout)
    found = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


KINDS = [
    *(("eager", 1, dtype) for dtype in gpu_record.DTYPES["eager"]),
    ("eager", 3, "float32"),
    *(("triton", 1, dtype) for dtype in gpu_record.DTYPES["triton"]),
    *(("triton", 3, dtype) for dtype in gpu_record.DTYPES["ring"]),
]
# A float32 product without tensor cores compiles for most of a minute at d = 200.
CALLS = [
    *((case, "grouped", *kind) for case in CASES for kind in KINDS),
    *(("bidirectional", "plain", *kind) for kind in KINDS),
    *(("causal", "wide", *kind) for kind in KINDS if kind[2] != "float32"),
]


@needs_cuda
@pytest.mark.cuda
@pytest.mark.parametrize(("case", "shape", "backend", "ring_size", "dtype"), CALLS)
def test_equals_the_oracle(
    case: str,
    shape: str,
    backend: str,
    ring_size: int,
    dtype: str,
    shares: Shares,
) -> None:
    arrays = [round_to(x, dtype) for x in _arrays(301, *SHAPES[shape], seed=0)]
    options = CASES[case]
    pattern = OraclePattern(tuple(zip(SEGMENTS, RATES, strict=True)))
    query, key, value, dout = arrays
    plain = naive(query, key, value, pattern, dtype, dout=dout, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, dout=dout, **options)
    actual = _run(arrays, dtype, backend=backend, ring_size=ring_size, **options)
    name = "ring" if ring_size > 1 and backend != "eager" else backend
    note(shares, name, dtype, check_result(actual, exact, plain, dtype))


ALONE = [
    *(("triton", dtype) for dtype in gpu_record.DTYPES["ring"]),
    *((name, dtype) for name in ("sdpa", "gluon") for dtype in gpu_record.DTYPES[name]),
]


@needs_cuda
@pytest.mark.cuda
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(("backend", "dtype"), ALONE)
def test_own_rows_as_a_sequence_equal_the_oracle(
    backend: str, dtype: str, isolated: bool, is_causal: bool, shares: Shares
) -> None:
    """Shards begin where segments do: the rank's own rows take the kernels for whole sequences."""
    if backend == "gluon" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no CUDA device of compute capability 9.0")
    query, key, value, dout = arrays = [round_to(x, dtype) for x in _arrays(1536, 4, 2, 64, seed=7)]
    segments, rates = ((256, 512), (1, 2)) if isolated else ((256, 1536, 1536), (1, 2, 4))
    pattern = OraclePattern(tuple(zip(segments, rates, strict=True)))
    options = {"dout": dout, "is_causal": is_causal}
    plain = naive(query, key, value, pattern, dtype, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, **options)
    ours = DilationPattern.longnet(segments, rates)
    chosen: dict[str, Any] = {"backend": backend, "ring_size": 3, "is_causal": is_causal}
    actual = _run(arrays, dtype, ours, **chosen)
    note(shares, "ring", dtype, check_result(actual, exact, plain, dtype))


# Rows shift in the second and third branch: r does not divide w there.
SWITCHES: dict[str, dict[str, bool]] = {
    "phantoms": {"phantom_keys": True},
    "detached": {"detach_mix": True},
    "torchscale": {"phantom_keys": True, "detach_mix": True, "shift_rows": True},
}


@needs_cuda
@pytest.mark.cuda
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("backend", "ring_size", "dtype"),
    [
        *((backend, 1, x) for backend in ("eager", "triton") for x in gpu_record.DTYPES[backend]),
        *(("triton", 2, x) for x in gpu_record.DTYPES["ring"]),
    ],
)
@pytest.mark.parametrize("switches", list(SWITCHES))
def test_torchscale_modes_equal_the_oracle(
    switches: str,
    backend: str,
    ring_size: int,
    dtype: str,
    is_causal: bool,
    shares: Shares,
) -> None:
    query, key, value, dout = arrays = [round_to(x, dtype) for x in _arrays(301, 6, 2, 48, seed=4)]
    segments, rates, chosen = (24, 50, 90, 400), (2, 3, 4, 8), SWITCHES[switches]
    branches = tuple(zip(segments, rates, strict=True))
    pattern = OraclePattern(branches, "torchscale", **chosen)
    options = {"dout": dout, "is_causal": is_causal}
    plain = naive(query, key, value, pattern, dtype, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, **options)
    ours = DilationPattern.torchscale(segments, rates, **chosen)
    chosen: dict[str, Any] = {"backend": backend, "ring_size": ring_size, "is_causal": is_causal}
    actual = _run(arrays, dtype, ours, **chosen)
    name = backend if ring_size == 1 else "ring"
    note(shares, name, dtype, check_result(actual, exact, plain, dtype))


@needs_cuda
@pytest.mark.cuda
def test_triton_repeats_bitwise_and_writes_every_row() -> None:
    arrays = _arrays(301, 6, 2, 48, seed=3)
    first = _run(arrays, "bfloat16", backend="triton", is_causal=True)
    # Freed memory holds NaN now, so a row that is not written shows.
    poison = torch.full((1 << 22,), torch.nan, device="cuda")
    del poison
    again = _run(arrays, "bfloat16", backend="triton", is_causal=True)
    for name in ("out", "lse", "dq", "dk", "dv"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.isnan(getattr(again, name)).any()


@needs_cuda
@pytest.mark.cuda
def test_triton_addresses_beyond_two_to_the_31() -> None:
    n, heads, d = 1_100_000, 16, 128
    pattern = DilationPattern.longnet([64], [1])
    assert n * heads * d > 2**31
    query, key, value = (
        torch.randn(1, n, heads, d, dtype=torch.bfloat16, device="cuda") for _ in range(3)
    )
    out = dilated_attention(query, key, value, pattern, backend="triton")
    last = n // 64 * 64
    for begin, end in ((0, 64), (last - 64, last), (last, n)):
        tail = [x[:, begin:end].double() for x in (query, key, value)]
        scores = torch.einsum("bphd,bkhd->bhpk", tail[0], tail[1]) / d**0.5
        wanted = torch.einsum("bhpk,bkhd->bphd", scores.softmax(-1), tail[2])
        plain = torch.nn.functional.scaled_dot_product_attention(
            *(x[:, begin:end].transpose(1, 2) for x in (query, key, value))
        ).transpose(1, 2)
        check(
            "out",
            out[:, begin:end].double().cpu().numpy(),
            wanted.cpu().numpy(),
            plain.double().cpu().numpy(),
            "bfloat16",
        )


@needs_cuda
@pytest.mark.cuda
def test_auto_takes_kernels_of_its_own() -> None:
    full_tiles = DilationPattern.longnet((128, 256), (1, 2))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
    ) as profile:
        _run(_arrays(301, 6, 2, 48, seed=3), "bfloat16", full_tiles)
    kernels = {event.key for event in profile.key_averages()}
    assert {"forward_kernel", "dquery_kernel", "dkey_dvalue_kernel"} <= kernels


@needs_cuda
@pytest.mark.cuda
def test_deterministic_bits_do_not_depend_on_the_ring() -> None:
    arrays = _arrays(301, 4, 4, 32, seed=1)
    first = _run(arrays, "float32", deterministic=True)
    for ring_size in (1, 2, 5):
        again = _run(arrays, "float32", deterministic=True, ring_size=ring_size)
        np.testing.assert_array_equal(again.out, first.out)
        np.testing.assert_array_equal(again.lse, first.lse)


def _ring_rank(rank: int, size: int, port: int) -> None:
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
        device_id=torch.device("cuda", rank),
    )
    group = dist.group.WORLD
    pattern = DilationPattern.longnet(SEGMENTS, RATES)
    full = [torch.tensor(x, device="cuda") for x in _arrays(301, 6, 2, 32, seed=2)]
    for layout in ("sharded", "replicated"):
        for name in ("bidirectional", "causal", "dropout", "documents", "deterministic"):
            options = CASES.get(name, {"deterministic": True})
            inputs = [x.clone().requires_grad_() for x in full[:3]]
            expected = dilated_attention(*inputs, pattern, **options)
            gradients = torch.autograd.grad(expected, inputs, full[3])
            cut = layout == "sharded"
            mine = [shard(x, group=group) if cut else x.clone() for x in full]
            leaves = [x.detach().requires_grad_() for x in mine[:3]]
            out = ring_dilated_attention(*leaves, pattern, group=group, layout=layout, **options)
            found = [out, *torch.autograd.grad(out, leaves, mine[3])]
            if cut:
                found = [unshard(x.detach(), group=group) for x in found]
            for actual, wanted in zip(found, (expected, *gradients), strict=True):
                scale = wanted.abs().max()
                # float64 with a few hundred terms a sum, in another order.
                assert (actual - wanted).abs().max() <= 301 * torch.finfo(torch.float64).eps * scale
    dist.destroy_process_group()


@needs_two
@pytest.mark.multigpu
def test_ring_over_nccl_equals_one_device() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    size = torch.cuda.device_count()
    torch.multiprocessing.spawn(_ring_rank, args=(size, port), nprocs=size)
