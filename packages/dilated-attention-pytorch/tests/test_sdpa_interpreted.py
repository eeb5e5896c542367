"""The kernels that join library calls under Triton's interpreter: `python -m nox -s interpret`.

The calls are the CPU's, and their results are joined by the kernels that join CUDA's.
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
from dilated_attention_pytorch.kernels.sdpa import calls, launch, plan
from dilated_attention_pytorch.kernels.sdpa.views import view
from dilated_attention_pytorch.schedule import Problem

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in the session 'interpret' only", allow_module_level=True)

from dilated_attention_pytorch.kernels.sdpa import gpu_merge

# Triton 3.6's interpreter turns one-element arrays into ints in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

# (b, n, heads, key/value heads, d, segments, dilations, options)
CASES: dict[str, tuple[int, int, int, int, int, tuple[int, ...], tuple[int, ...], Any]] = {
    "nested": (1, 64, 4, 4, 16, (16, 32, 64), (1, 2, 4), {}),
    "ragged": (1, 59, 4, 4, 24, (16, 24, 99), (1, 2, 4), {"is_causal": True}),
    "far apart": (1, 90, 2, 2, 8, (40, 90), (5, 16), {}),
    "uneven": (1, 61, 6, 3, 3, (10, 25), (3, 7), {}),
    "uncovered": (1, 20, 5, 5, 3, (2, 9), (5, 2), {"is_causal": True}),
    "batch": (3, 48, 4, 2, 8, (16, 24, 99), (1, 2, 2), {}),
    "batch_ragged": (2, 50, 4, 4, 8, (16, 50), (1, 4), {}),
    "grouped": (1, 50, 8, 2, 8, (16, 24, 50), (1, 2, 4), {}),
    "documents": (1, 61, 2, 2, 8, (9, 20), (2, 3), {"cu_seqlens": (0, 17, 17, 40, 61)}),
    "nothing": (1, 9, 2, 2, 8, (1,), (3,), {}),
}


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels on CPU tensors, several programs in a short sequence."""
    monkeypatch.setattr(launch, "_joining", lambda kind: gpu_merge)
    monkeypatch.setattr(gpu_merge, "_TILE", 128)
    monkeypatch.setattr(gpu_merge, "_SUM_TILE", 256)


@pytest.mark.parametrize(
    ("name", "with_dlse"), [*((name, False) for name in CASES), ("uneven", True), ("batch", True)]
)
def test_equals_the_oracle(name: str, with_dlse: bool) -> None:
    b, n, heads, kv_heads, d, segments, rates, options = CASES[name]
    rng = np.random.default_rng(0)
    shapes = [(b, n, h, d) for h in (heads, kv_heads, kv_heads, heads)]
    query, key, value, dout = (round_to(rng.standard_normal(x), "float32") for x in shapes)
    gradients = {"dout": dout}
    if with_dlse:
        gradients["dlse"] = round_to(rng.standard_normal((b, n, heads)), "float32")
    pattern = OraclePattern(tuple(zip(segments, rates, strict=True)))
    given = {k: list(v) if k == "cu_seqlens" else v for k, v in options.items()} | gradients
    exact = reference(query, key, value, pattern, "float32", **given)
    plain = naive(query, key, value, pattern, "float32", **given)
    library = DilationPattern.longnet(segments, rates)
    causal, bounds = options.get("is_causal", False), options.get("cu_seqlens")
    problem = Problem(library, n, heads, kv_heads, causal, bounds)
    kernel = KernelOptions(problem, d**-0.5, eager)
    inputs = [torch.tensor(x, dtype=torch.float32) for x in (query, key, value)]
    grads = [torch.tensor(x, dtype=torch.float32) for x in gradients.values()]
    result = launch.forward(*inputs, None, kernel)
    dlse = grads[1] if with_dlse else None
    shares = launch.backward(*inputs, None, grads[0], dlse, result, kernel)
    found = (x.double().numpy() for x in (result.out, result.lse, *shares))
    check_result(Result._make((*found, None, None)), exact, plain, "float32")


@pytest.mark.parametrize("library", [calls.CUDNN, calls.FLASH], ids=["cudnn", "flash"])
def test_backward_gets_the_layout_that_its_plan_was_made_for(library: calls.Library) -> None:
    """Rows of the first branch lie so in dout and out already; those of the others are laid out."""
    problem = Problem(DilationPattern.longnet([16, 32, 64], [1, 2, 4]), 64, 4, 4)
    query, dout, out = (torch.randn(1, 64, 4, 8) for _ in range(3))
    lse = torch.randn(1, 64, 4)
    found = plan.calls(problem, 64, single=True, grouped=True)
    planned = [(call, library, view(query, call)) for call in found]
    sides = gpu_merge.spread(planned, dout, out, lse)
    for (call, _, rows), operands in zip(planned, sides, strict=True):
        shaped = library.like(rows)
        for tensor, source in zip(operands[:2], (dout, out), strict=True):
            steps = zip(tensor.stride(), shaped.stride(), tensor.shape, strict=True)
            assert all(a == b or size == 1 for a, b, size in steps)
            own = tensor.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()
            assert own == (call.branch > 0)
        for tensor, source in zip(operands, (dout, out, lse), strict=True):
            assert torch.equal(tensor, view(source, call))
        assert operands[2].is_contiguous()


def test_rows_of_half_precision_are_summed_in_single() -> None:
    """Shares 2048 and 1 and -2048: in float16 the 1 would be lost."""
    pattern = DilationPattern.longnet([4, 8, 16], [1, 1, 1])
    found = plan.calls(Problem(pattern, 16, 2, 2), 16, single=True, grouped=False)
    shapes = [(call.segments, len(call.query), call.rows, 8) for call in found]
    parts = [
        (call, torch.full(shape, value, dtype=torch.float16))
        for call, shape, value in zip(found, shapes, (2048.0, 1.0, -2048.0), strict=True)
    ]
    total = torch.empty((1, 16, 2, 8), dtype=torch.float16)
    gpu_merge.gather_add(parts, total, key=False)
    assert torch.equal(total, torch.ones_like(total))
