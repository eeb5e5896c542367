"""The Triton kernels under Triton's interpreter, on a CPU: `python -m nox -s interpret`.

The interpreter gets bfloat16 products wrong and needs numpy < 2.4, so this has an environment of
its own and float32 and float16 only.
"""

from __future__ import annotations

import os
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

# Triton 3.6's interpreter turns one-element arrays into ints in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

BLOCKS = launch.Blocks(own=16, other=16, warps=4, stages=1)
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
    for name in ("forward_blocks", "dquery_blocks", "dkey_blocks"):
        monkeypatch.setattr(launch, name, lambda head_dim, dtype: BLOCKS)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_oracle(name: str, dtype: str) -> None:
    n, heads, kv_heads, d, segments, rates, options = CASES[name]
    rng = np.random.default_rng(0)
    shapes = [(1, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [round_to(rng.standard_normal(shape), dtype) for shape in shapes]
    pattern = OraclePattern(tuple(zip(segments, rates, strict=True)))
    query, key, value, dout = arrays
    given = {k: list(v) if k == "cu_seqlens" else v for k, v in options.items()}
    exact = reference(query, key, value, pattern, dtype, dout=dout, **given)
    plain = naive(query, key, value, pattern, dtype, dout=dout, **given)
    problem = Problem(
        DilationPattern.longnet(segments, rates),
        n,
        heads,
        kv_heads,
        options.get("is_causal", False),
        options.get("cu_seqlens"),
    )
    seed = options.get("seed")
    signed = None if seed is None else torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
    kernel = KernelOptions(
        problem, options.get("scale", d**-0.5), eager, options.get("dropout_p", 0.0), signed
    )
    q, k, v, g = (torch.tensor(x, dtype=getattr(torch, dtype)) for x in arrays)
    mask = torch.tensor(options["key_mask"]) if "key_mask" in options else None
    out, lse = launch.forward(q, k, v, mask, kernel)
    delta = (g.float() * out.float()).sum(-1)
    gradients = launch.backward(q, k, v, mask, g, lse, delta, kernel)
    found = (x.to(torch.float64).numpy() for x in (out, lse, *gradients))
    check_result(Result._make((*found, None, None)), exact, plain, dtype)
