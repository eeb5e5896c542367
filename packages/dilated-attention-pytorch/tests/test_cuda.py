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
from dilated_attention_oracle.tolerance import check_result
from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
    shard,
    unshard,
)

SEGMENTS, RATES = (24, 50, 400), (1, 2, 3)
CASES: dict[str, dict[str, Any]] = {
    "bidirectional": {},
    "causal": {"is_causal": True},
    "dropout": {"dropout_p": 0.3, "seed": 11},
    "documents": {"cu_seqlens": [0, 70, 70, 301]},
}


def _arrays(n: int, heads: int, kv_heads: int, d: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, n, h, d)) for h in (heads, kv_heads, kv_heads, heads)]


def _run(arrays: list[np.ndarray], dtype: str, **options: Any) -> Result:
    pattern = DilationPattern.longnet(SEGMENTS, RATES)
    *inputs, dout = (torch.tensor(x, dtype=getattr(torch, dtype), device="cuda") for x in arrays)
    inputs = [x.requires_grad_() for x in inputs]
    ring_size = options.pop("ring_size", 1)
    out, lse = ring_dilated_attention(
        *inputs, pattern, ring_size=ring_size, return_lse=True, **options
    )
    gradients = torch.autograd.grad(out, inputs, dout)
    found = (x.detach().to("cpu", torch.float64).numpy() for x in (out, lse, *gradients))
    return Result._make((*found, None, None))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


@needs_cuda
@pytest.mark.cuda
@pytest.mark.parametrize("ring_size", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", list(CASES))
def test_eager_equals_the_oracle(name: str, dtype: str, ring_size: int) -> None:
    arrays = [round_to(x, dtype) for x in _arrays(301, 6, 2, 48, seed=0)]
    options, pattern = CASES[name], OraclePattern(tuple(zip(SEGMENTS, RATES, strict=True)))
    query, key, value, dout = arrays
    plain = naive(query, key, value, pattern, dtype, dout=dout, device="cuda", **options)
    exact = reference(query, key, value, pattern, dtype, dout=dout, **options)
    check_result(_run(arrays, dtype, ring_size=ring_size, **options), exact, plain, dtype)


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
        for options in (*CASES.values(), {"deterministic": True}):
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
