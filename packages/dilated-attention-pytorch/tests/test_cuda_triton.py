"""What the `triton` backend costs beside its arithmetic: memory, launches; and what it survives."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import tolerance
from dilated_attention_pytorch import DilationPattern, dilated_attention

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Every tensor below is a multiple of the 512 bytes in which the allocator counts.
BATCH, N, HEADS, KV_HEADS, D = 2, 1024, 4, 2, 64
EXACT = DilationPattern.longnet([256, 1024], [1, 2])
SWITCHED = DilationPattern.torchscale(
    [100, 1024], [3, 2], phantom_keys=True, detach_mix=True, shift_rows=True
)


def _inputs(dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """query, key, value and dout."""
    generator = torch.Generator("cuda").manual_seed(0)
    return [
        torch.randn(BATCH, N, heads, D, generator=generator, device="cuda", dtype=dtype)
        for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)
    ]


def _attend(query: Tensor, key: Tensor, value: Tensor, pattern: DilationPattern = EXACT) -> Tensor:
    return dilated_attention(query, key, value, pattern, backend="triton")


def _peak(call: Callable[[], Any]) -> tuple[Any, int]:
    """The call's result, and the most bytes that it held at once, its result included."""
    gc.collect()  # or what earlier tests left could go in between
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    return result, torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("pattern", [EXACT, SWITCHED], ids=["exact", "torchscale"])
def test_memory_is_that_of_the_results_and_the_statistics(pattern: DilationPattern) -> None:
    """Beyond out and gradients: lse forward; lse and delta once more backward, 4 bytes a row.

    torchscale's modes keep both, and out, once for each branch as well.
    """
    *inputs, dout = _inputs()
    inputs = [x.requires_grad_() for x in inputs]
    torch.autograd.grad(_attend(*inputs, pattern), inputs, dout)  # compiles, makes the tables
    rows, lanes = BATCH * N * HEADS, 0 if pattern.exact else len(pattern.branches)
    out, forward = _peak(lambda: _attend(*inputs, pattern))
    assert forward == (1 + lanes) * (2 * D + 4) * rows
    gradients, backward = _peak(lambda: torch.autograd.grad(out, inputs, dout))
    assert backward == sum(x.nbytes for x in gradients) + 2 * max(1, lanes) * 4 * rows


def test_forward_is_one_launch_and_backward_three() -> None:
    *inputs, dout = _inputs()
    inputs = [x.requires_grad_() for x in inputs]
    names = {
        EXACT: ("forward_kernel", "dquery_kernel", "dkey_dvalue_kernel"),
        SWITCHED: ("lanes_forward_kernel", "lanes_dquery_kernel", "lanes_dkey_dvalue_kernel"),
    }
    for pattern, (forward, *backward) in names.items():
        torch.autograd.grad(_attend(*inputs, pattern), inputs, dout)
        torch.cuda.synchronize()
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
        ) as profile:
            torch.autograd.grad(_attend(*inputs, pattern), inputs, dout)
            torch.cuda.synchronize()
        on_device = torch.autograd.DeviceType.CUDA
        launched = sorted(x.name for x in profile.events() if x.device_type == on_device)
        assert launched == sorted([forward, "prepare_kernel", *backward])


@pytest.mark.parametrize("pattern", [EXACT, SWITCHED], ids=["exact", "torchscale"])
def test_kept_launches_look_at_alignment(pattern: DilationPattern) -> None:
    """Compiled for addresses that 16 divides, a kernel must not serve others, and the reverse."""
    *inputs, _ = _inputs()
    wanted = _attend(*inputs, pattern)
    shifted = [torch.empty(x.numel() + 1, dtype=x.dtype, device="cuda") for x in inputs]
    views = [x[1:].view_as(y).copy_(y) for x, y in zip(shifted, inputs, strict=True)]
    assert all(x.data_ptr() % 16 == 2 for x in views)
    assert torch.equal(_attend(*views, pattern), wanted)
    assert torch.equal(_attend(*inputs, pattern), wanted)
    assert torch.equal(_attend(views[0], *inputs[1:], pattern), wanted)


def test_strides_are_those_of_the_call() -> None:
    *inputs, dout = _inputs()
    inputs = [x.requires_grad_() for x in inputs]
    apart = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    apart = [x.requires_grad_() for x in apart]
    results = []
    for tensors in (inputs, apart, inputs):
        out = _attend(*tensors)
        results.append([out, *torch.autograd.grad(out, tensors, dout)])
    for first, second, third in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.parametrize("pattern", [EXACT, SWITCHED], ids=["exact", "torchscale"])
def test_a_cuda_graph_replays_forward_and_backward(pattern: DilationPattern) -> None:
    *inputs, dout = _inputs()
    inputs = [x.requires_grad_() for x in inputs]

    def step() -> list[Tensor]:
        out = _attend(*inputs, pattern)
        return [out, *torch.autograd.grad(out, inputs, dout)]

    # One stream for all: PyTorch warns where gradients of a leaf come on several.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = step()
    with torch.cuda.stream(side), torch.no_grad():
        for x in inputs:
            x.mul_(1.25)
        graph.replay()
    with torch.cuda.stream(side):
        expected = step()
    side.synchronize()
    for found, wanted in zip(captured, expected, strict=True):
        assert torch.equal(found, wanted)


# Inductor calls PyTorch's own deprecated functions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_compiled_calls_have_the_same_bits() -> None:
    *inputs, dout = _inputs()
    inputs = [x.requires_grad_() for x in inputs]

    def twice(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _attend(query, key, value) * 2

    results = []
    for call in (twice, torch.compile(twice, fullgraph=True)):
        out = call(*inputs)
        results.append([out, *torch.autograd.grad(out, inputs, dout)])
    for eager, compiled in zip(*results, strict=True):
        assert torch.equal(eager, compiled)


@pytest.mark.parametrize("is_causal", [False, True])
def test_float32_keeps_its_digits_over_thousands_of_rows(is_causal: bool) -> None:
    """Products of a block are added up before the sum over blocks, which is a long one."""
    n, pattern = 4096, DilationPattern.longnet([4096], [1])
    generator = torch.Generator("cuda").manual_seed(0)
    drawn = [torch.randn(1, n, 4, D, generator=generator, device="cuda") for _ in range(4)]

    def attend(dtype: torch.dtype, backend: str) -> list[Any]:
        *inputs, dout = (x.to(dtype, copy=True) for x in drawn)
        inputs = [x.requires_grad_() for x in inputs]
        out = dilated_attention(*inputs, pattern, is_causal=is_causal, backend=backend)
        found = [out.detach(), *torch.autograd.grad(out, inputs, dout)]
        return [x.double().cpu().numpy() for x in found]

    exact, plain = attend(torch.float64, "eager"), attend(torch.float32, "eager")
    named = zip(
        ("out", "dq", "dk", "dv"), attend(torch.float32, "triton"), exact, plain, strict=True
    )
    for name, actual, wanted, naive in named:
        tolerance.check(name, actual, wanted, naive, "float32")
