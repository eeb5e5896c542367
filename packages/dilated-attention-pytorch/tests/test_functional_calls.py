"""Details of the public calls that drawn cases do not reach: autocast, seeds, strides, grads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
)

PATTERN = DilationPattern.longnet([4, 12], [1, 3])
Call = Callable[..., torch.Tensor]


def ring(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
    return ring_dilated_attention(query, key, value, PATTERN, ring_size=3, **options)


def one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
    return dilated_attention(query, key, value, PATTERN, **options)


CALLS = pytest.mark.parametrize("call", [one, ring])


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 12, 2, 4, generator=generator) for _ in range(3)]


@CALLS
def test_autocast_casts_as_sdpa_does(call: Call) -> None:
    q, k, v = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(q, k.half(), v)
        double = call(q.double(), k.double(), v.double())
    assert out.dtype == torch.bfloat16
    assert double.dtype == torch.float64
    assert torch.equal(out, call(*(x.bfloat16() for x in (q, k.half(), v))))


@CALLS
def test_gradients_flow_through_autocast(call: Call) -> None:
    q, k, v = (x.requires_grad_() for x in inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(q, k, v)
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in (q, k, v))


@CALLS
def test_a_seed_is_an_int_of_either_sign_or_a_tensor(call: Call) -> None:
    found = [
        call(*inputs(), dropout_p=0.5, seed=seed)
        for seed in (2**64 - 3, -3, torch.tensor(-3, dtype=torch.int64))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], call(*inputs(), dropout_p=0.5, seed=3))


@CALLS
def test_strided_and_expanded_inputs(call: Call) -> None:
    q, k, v = inputs()
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k)]
    shared = v[:, :, :1].expand(-1, -1, 2, -1)
    found = call(*strided, shared)
    assert torch.equal(found, call(q, k, shared.contiguous()))


@CALLS
def test_one_tensor_as_query_key_and_value(call: Call) -> None:
    (x, *_) = inputs()
    x.requires_grad_()
    (whole,) = torch.autograd.grad(call(x, x, x).sum(), x)
    parts = [x.detach().clone().requires_grad_() for _ in range(3)]
    apart = torch.autograd.grad(call(*parts).sum(), parts)
    torch.testing.assert_close(whole, apart[0] + apart[1] + apart[2])


@CALLS
def test_only_what_requires_a_gradient_gets_one(call: Call) -> None:
    q, k, v = inputs()
    out = call(q, k, v.requires_grad_())
    out.sum().backward()
    assert v.grad is not None
    assert q.grad is None
    assert not call(q, k, v.detach()).requires_grad


@CALLS
def test_a_second_derivative_is_refused(call: Call) -> None:
    q, k, v = (x.requires_grad_() for x in inputs())
    (dq,) = torch.autograd.grad(call(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|no autograd formula"):
        dq.sum().backward()


@CALLS
def test_backward_may_run_twice_on_a_retained_graph(call: Call) -> None:
    q, k, v = (x.requires_grad_() for x in inputs())
    out = call(q, k, v)
    first = torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True)
    second = torch.autograd.grad(out.sum(), (q, k, v))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@CALLS
def test_documents_as_a_list_or_a_tensor(call: Call) -> None:
    bounds = [0, 5, 5, 12]
    listed = call(*inputs(), cu_seqlens=bounds)
    assert torch.equal(listed, call(*inputs(), cu_seqlens=torch.tensor(bounds, dtype=torch.int32)))
    assert not torch.equal(listed, call(*inputs()))


@CALLS
def test_a_mask_changed_before_backward_is_refused(call: Call) -> None:
    """As autograd does for every tensor that backward needs."""
    mask = torch.ones(1, 12, dtype=torch.bool)
    q, k, v = (x.requires_grad_() for x in inputs())
    out = call(q, k, v, key_mask=mask)
    mask[:, 9:] = False
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
