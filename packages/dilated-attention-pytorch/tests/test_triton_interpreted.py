"""The Triton kernels under Triton's interpreter, on a CPU: `python -m nox -s interpret`.

The interpreter gets bfloat16 products wrong and needs numpy < 2.4, so this has an environment of
its own and float32 and float16 only.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern as OraclePattern
from dilated_attention_oracle import Result, round_to
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.tolerance import check_result
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.kernels.options import KernelOptions
from dilated_attention_pytorch.schedule import Problem

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in the session 'interpret' only", allow_module_level=True)

from dilated_attention_pytorch.kernels.triton import launch
from dilated_attention_pytorch.kernels.triton.blocks import Blocks
from dilated_attention_pytorch.kernels.triton.prepare import prepare

# Triton 3.6's interpreter turns one-element arrays into ints in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

VECTORS = Path(__file__).parents[3] / "oracle" / "tests" / "data" / "torchscale_vectors.npz"
BLOCKS = Blocks(own=16, other=16, warps=4, stages=1)
# (n, heads, key/value heads, head dimension, segments, dilations, options)
CASES: dict[str, tuple[int, int, int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "nested": (70, 4, 4, 16, (16, 32, 64), (1, 2, 4), {}),
    "nested_causal": (70, 4, 2, 16, (16, 32, 64), (1, 2, 4), {"is_causal": True}),
    "uneven": (67, 3, 1, 24, (10, 33, 100), (1, 2, 3), {}),
    "uneven_causal": (67, 3, 1, 24, (10, 33, 100), (3, 2, 5), {"is_causal": True}),
    "documents": (61, 2, 2, 8, (9, 20), (2, 3), {"cu_seqlens": (0, 17, 17, 40, 61)}),
    "key_mask": (50, 2, 1, 16, (7, 50), (1, 2), {"key_mask": np.arange(50)[None] % 3 != 1}),
    "dropout": (45, 2, 2, 16, (16, 45), (1, 2), {"dropout_p": 0.4, "seed": 2**63 + 7}),
    "dilation_over_segment": (20, 5, 5, 3, (2, 9), (5, 2), {"scale": 0.7}),
    "one_row": (1, 1, 1, 1, (1,), (1,), {}),
    "everything": (
        58,
        4,
        2,
        12,
        (11, 30),
        (2, 3),
        {
            "is_causal": True,
            "dropout_p": 0.2,
            "seed": 5,
            "cu_seqlens": (0, 25, 58),
            "key_mask": np.arange(58)[None] % 4 != 2,
        },
    ),
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles meet in a short sequence."""
    for name in ("forward_blocks", "lanes_forward_blocks", "dquery_blocks", "dkey_blocks"):
        monkeypatch.setattr(launch, name, lambda head_dim, dtype: BLOCKS)


def _equals_the_oracle(
    arrays: list[np.ndarray],
    ours: DilationPattern,
    oracle: OraclePattern,
    dtype: str,
    *,
    dlse: np.ndarray | None = None,
    **options: Any,
) -> None:
    """out, lse and the gradients of the kernels, within the tolerance."""
    query, key, value, dout = arrays
    _, n, heads, d = query.shape
    given = {k: list(v) if k == "cu_seqlens" else v for k, v in options.items()}
    exact = reference(query, key, value, oracle, dtype, dout=dout, dlse=dlse, **given)
    plain = naive(query, key, value, oracle, dtype, dout=dout, dlse=dlse, **given)
    problem = Problem(
        ours,
        n,
        heads,
        key.shape[2],
        options.get("is_causal", False),
        options.get("cu_seqlens"),
    )
    seed = options.get("seed")
    signed = None if seed is None else torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
    kernel = KernelOptions(
        problem, options.get("scale", d**-0.5), eager, options.get("dropout_p", 0.0), signed
    )
    q, k, v, g = (torch.tensor(x, dtype=getattr(torch, dtype)) for x in arrays)
    # Rows of one head apart from those of the next, as in SDPA's layout: only d is contiguous.
    q, g = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, g))
    mask = torch.tensor(options["key_mask"]) if "key_mask" in options else None
    through_lse = None if dlse is None else torch.tensor(dlse, dtype=torch.float32)
    result = launch.forward(q, k, v, mask, kernel)
    gradients = launch.backward(q, k, v, mask, g, through_lse, result, kernel)
    found = (x.to(torch.float64).numpy() for x in (result.out, result.lse, *gradients))
    check_result(Result._make((*found, None, None)), exact, plain, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_oracle(name: str, dtype: str) -> None:
    n, heads, kv_heads, d, segments, rates, options = CASES[name]
    rng = np.random.default_rng(0)
    shapes = [(1, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [round_to(rng.standard_normal(shape), dtype) for shape in shapes]
    dlse = round_to(rng.standard_normal((1, n, heads)), "float32")
    oracle = OraclePattern(tuple(zip(segments, rates, strict=True)))
    ours = DilationPattern.longnet(segments, rates)
    _equals_the_oracle(arrays, ours, oracle, dtype, dlse=dlse, **options)


def _torchscale(
    segments: list[int], rates: list[int], switches: tuple[str, ...]
) -> tuple[DilationPattern, OraclePattern]:
    chosen = dict.fromkeys(switches, True)
    ours = DilationPattern.torchscale(segments, rates, **chosen)
    branches = tuple(zip(segments, rates, strict=True))
    return ours, OraclePattern(branches, "torchscale", **chosen)


SWITCHES = ("phantom_keys", "detach_mix", "shift_rows")


@pytest.mark.parametrize("number", [9, 11, 14, 18, 21, 27])
def test_torchscale_equals_its_vectors(number: int) -> None:
    """The vectors' inputs, all switches on; the oracle's own tests hold it to the vectors."""
    with np.load(VECTORS) as stored:
        case = {x: stored[f"case{number:02d}/{x}"] for x in ("q", "k", "v", "dout")}
        segments, rates, is_causal = (
            stored[f"case{number:02d}/{x}"].tolist()
            for x in ("segment_lengths", "dilation_rates", "is_causal")
        )
    arrays = [round_to(x, "float32") for x in case.values()]
    patterns = _torchscale(segments, rates, SWITCHES)
    _equals_the_oracle(arrays, *patterns, "float32", is_causal=bool(is_causal))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "switches", [SWITCHES[:1], SWITCHES[1:2], SWITCHES[:2], (SWITCHES[0], SWITCHES[2]), SWITCHES]
)
def test_torchscale_by_switch(switches: tuple[str, ...], is_causal: bool) -> None:
    rng = np.random.default_rng(1)
    shapes = [(1, 29, h, 12) for h in (2, 1, 1, 2)]
    arrays = [round_to(rng.standard_normal(shape), "float16") for shape in shapes]
    dlse = None
    if "detach_mix" not in switches:
        dlse = round_to(rng.standard_normal((1, 29, 2)), "float32")
    patterns = _torchscale([9, 3, 20], [2, 4, 3], switches)
    _equals_the_oracle(arrays, *patterns, "float16", dlse=dlse, is_causal=is_causal)


def test_a_lane_whose_lse_is_zero_counts_as_empty() -> None:
    """torchscale's sentinel: the first causal row sees itself alone, with score 0."""
    rng = np.random.default_rng(2)
    arrays = [round_to(rng.standard_normal((1, 8, 1, 16)), "float32") for _ in range(4)]
    arrays[0][:, 0] = 0
    patterns = _torchscale([4, 8], [1, 2], SWITCHES)
    _equals_the_oracle(arrays, *patterns, "float32", is_causal=True)


def test_prepare_reads_any_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    dout = torch.randn(2, 3, 70, 24, generator=generator).half().transpose(1, 2)
    out = torch.randn(2, 70, 6, 40, generator=generator).half()[:, :, ::2, 8:32]
    lse = torch.randn(2, 3, 70, generator=generator).transpose(1, 2)
    lse[1, 5, 2] = -torch.inf
    dlse = torch.randn(70, 3, 1, generator=generator).permute(2, 0, 1).expand(2, 70, 3).clone()
    dlse[1, 5, 2] = torch.nan
    lse2, delta = prepare(dout, dlse, out, lse)
    wanted = (dout.double() * out.double()).sum(-1) - dlse.double()
    wanted[1, 5, 2] = 0
    # 24 products of a float16 each are exact in float32; only the sums round.
    scale = (dout.double() * out.double()).abs().sum(-1).max() + dlse.nan_to_num().abs().max()
    bound = 25 * torch.finfo(torch.float32).eps * scale
    assert (delta.transpose(1, 2).double() - wanted).abs().max() <= bound
    assert lse2[1, 2, 5] == torch.inf
    lse[1, 5, 2] = torch.inf
    torch.testing.assert_close(lse2.transpose(1, 2), lse * math.log2(math.e))
