"""The ops of `torch.library`: schema, fakes, autograd, and torch.compile on top of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from dilated_attention_pytorch import (
    DilationPattern,
    dilated_attention,
    merge_partials,
    ring_dilated_attention,
)
from dilated_attention_pytorch import nn as modules
from dilated_attention_pytorch.ring import ops

PATTERN = DilationPattern.longnet([4, 16], [1, 2])
SWITCHED = DilationPattern.torchscale(
    [6, 40], [4, 3], phantom_keys=True, detach_mix=True, shift_rows=True
)

MODULES = [getattr(modules, name) for name in sorted(vars(modules)) if name[0].isupper()]
MULTIHEADS = tuple(build for build in MODULES if "Multihead" in build.__name__)


def _inputs(*, transposed: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(2, 20, heads, 8, generator=generator) for heads in (4, 2, 2)]
    if transposed:
        found = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in found]
    return [x.requires_grad_() for x in found]


def _text(pattern: DilationPattern, **options: Any) -> str:
    given: dict[str, Any] = {
        "is_causal": False,
        "cu_seqlens": None,
        "backend": "auto",
        "deterministic": False,
        "ring_bits": False,
    }
    return ops.describe(pattern, 4, **(given | options))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("pattern", "masked", "dropout_p", "options"),
    [
        (PATTERN, False, 0.0, {}),
        (PATTERN, True, 0.0, {"is_causal": True, "deterministic": True}),
        (PATTERN, False, 0.3, {}),
        (SWITCHED, False, 0.0, {"is_causal": True}),
    ],
)
def test_opcheck(
    pattern: DilationPattern,
    masked: bool,
    dropout_p: float,
    options: dict[str, Any],
    transposed: bool,
) -> None:
    mask = torch.arange(40).view(2, 20) % 3 != 1 if masked else None
    seed = torch.tensor(7) if dropout_p else None
    text = _text(pattern, **options)
    inputs = _inputs(transposed=transposed)
    torch.library.opcheck(ops.attention, (*inputs, mask, seed, 0.3, dropout_p, text))


@pytest.mark.parametrize("pattern", [PATTERN, SWITCHED])
def test_opcheck_of_backward(pattern: DilationPattern) -> None:
    query, key, value = (x.detach() for x in _inputs(transposed=True))
    text = _text(pattern)
    results = ops.attention(query, key, value, None, None, 0.3, 0.0, text)
    dout, dlse = torch.ones_like(query), None if pattern.detach_mix else torch.ones(2, 20, 4)
    arguments = (query, key, value, None, None, *results, dout, dlse, 0.3, 0.0, text)
    torch.library.opcheck(ops.attention_backward, arguments)


def test_the_compiled_function_is_one_graph_with_the_same_bits() -> None:
    mask = torch.arange(40).view(2, 20) % 3 != 1

    def call(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor) -> Any:
        return dilated_attention(
            query, key, value, PATTERN, is_causal=True, key_mask=key_mask, return_lse=True
        )

    results = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        inputs = _inputs()
        out, lse = function(*inputs, mask)
        loss = out.square().sum() + lse.where(lse.isfinite(), 0).sum()
        results.append([out, lse, *torch.autograd.grad(loss, inputs)])
    for eager, compiled in zip(*results, strict=True):
        assert torch.equal(eager, compiled)


def test_one_compiled_graph_serves_every_length() -> None:
    lengths: list[int] = []

    def counting(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        lengths.append(1)
        return graph.forward

    def call(x: Tensor) -> Tensor:
        return dilated_attention(x, x, x, PATTERN)

    compiled = torch.compile(call, fullgraph=True, backend=counting, dynamic=True)
    for n in (5, 9, 23):
        x = torch.randn(1, n, 4, 8)
        assert torch.equal(compiled(x), call(x))
    assert len(lengths) == 1


@pytest.mark.parametrize("build", MODULES, ids=lambda build: build.__name__)
def test_modules_compile_to_one_graph_forward_and_backward(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    multihead = issubclass(build, MULTIHEADS)
    options = {"segment_lengths": [4, 16], "dilation_rates": [1, 2]}
    module = build(16, 4, **options) if multihead else build(**options)
    inputs = [torch.randn((2, 20, 16) if multihead else (2, 20, 4, 8)).requires_grad_()]
    leaves = [*inputs, *(x for x in module.parameters() if x.requires_grad)]
    # This class alone has a ring of 4 by default; rings are not compiled.
    keywords = {"ring_size": 1} if build is modules.RingAttentionCorrectV2 else {}
    results = []
    for call in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        found = call(*inputs * (1 if multihead else 3), **keywords)
        out = found[0] if isinstance(found, tuple) else found
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_the_ring_function_and_the_merge_compile_on_one_device() -> None:
    def call(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            ring_dilated_attention(query, key, value, pattern, return_lse=True)
            for pattern in (PATTERN, DilationPattern.longnet([8], [4]))
        ]
        return merge_partials(*zip(*parts, strict=True))

    inputs = _inputs()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(*inputs), call(*inputs), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_autocast_casts_the_inputs_and_nothing_within(backend: str) -> None:
    def call(query: Tensor, key: Tensor, value: Tensor) -> Any:
        return dilated_attention(query, key, value, PATTERN, backend=backend, return_lse=True)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    narrow = [x.detach().to(torch.bfloat16).requires_grad_() for x in _inputs()]
    out, lse = call(*narrow)
    expected = [out, lse, *torch.autograd.grad(out.float().square().sum(), narrow)]
    for function in (call, compiled):
        inputs = _inputs()
        with torch.autocast("cpu", torch.bfloat16):
            out, lse = function(*inputs)
        assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
        gradients = torch.autograd.grad(out.float().square().sum(), inputs)
        assert {x.dtype for x in gradients} == {torch.float32}
        for found, wanted in zip((out, lse, *gradients), expected, strict=True):
            assert torch.equal(found, wanted.to(found.dtype))
    outside, _ = compiled(*_inputs())
    assert outside.dtype == torch.float32, "a graph traced under autocast served a call without"


def test_dropout_under_compile_needs_a_seed() -> None:
    def call(x: Tensor, seed: Tensor | None) -> Tensor:
        return dilated_attention(x, x, x, PATTERN, dropout_p=0.5, seed=seed)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 12, 4, 8)
    assert torch.equal(compiled(x, torch.tensor(3)), call(x, torch.tensor(3)))
    with pytest.raises(Exception, match="dropout needs a seed"):
        compiled(x, None)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    from torch.utils.checkpoint import checkpoint

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return dilated_attention(query, key, value, PATTERN, dropout_p=0.3, seed=5)

    plain, again = _inputs(), _inputs()
    call(*plain).square().sum().backward()
    checkpoint(call, *again, use_reentrant=False).square().sum().backward()
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a.grad, b.grad)


def _alone(x: Tensor) -> Tensor:
    return dilated_attention(x, x, x, PATTERN)


def _over_a_ring(x: Tensor) -> Tensor:
    return ring_dilated_attention(x, x, x, PATTERN, ring_size=2)


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "vmap": lambda call, x: torch.func.vmap(call)(x[:, None]),
    "grad": lambda call, x: torch.func.grad(lambda y: call(y).sum())(x),
    "vjp": lambda call, x: torch.func.vjp(call, x),
    "jvp": lambda call, x: torch.func.jvp(call, (x,), (x,)),
    "jacrev": lambda call, x: torch.func.jacrev(call)(x),
}


# PyTorch's first use of forward mode calls its own deprecated function.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")


@FORWARD_MODE
@pytest.mark.parametrize("call", [_alone, _over_a_ring])
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_torch_func_is_refused_by_name(name: str, call: Callable[[Tensor], Tensor]) -> None:
    x = _inputs()[0].detach()
    with pytest.raises(NotImplementedError, match=r"torch\.func transforms .*autograd\.grad"):
        TRANSFORMS[name](call, x)


@FORWARD_MODE
def test_a_compiled_jvp_is_refused_and_not_zero() -> None:
    def tangent(x: Tensor) -> Any:
        return torch.func.jvp(_alone, (x,), (x,))[1]

    with pytest.raises(Exception, match=r"torch\.func transforms"):
        torch.compile(tangent, fullgraph=True, backend="aot_eager")(_inputs()[0].detach())


@FORWARD_MODE
@pytest.mark.parametrize("call", [_alone, _over_a_ring])
def test_forward_mode_is_refused_and_not_lost(call: Callable[[Tensor], Tensor]) -> None:
    x = _inputs()[0].detach()
    with (
        forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match="no forward-mode derivative"),
    ):
        call(forward_ad.make_dual(x, x))


def test_functional_call_works() -> None:
    module = modules.MultiheadDilatedAttention(16, 4, [1, 2], [4, 16])
    parameters = {name: x.detach().clone() for name, x in module.named_parameters()}
    x = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.func.functional_call(module, parameters, (x,))[0], module(x)[0])
    parameters["out_proj.bias"] += 1
    found = torch.func.functional_call(module, parameters, (x,))[0]
    torch.testing.assert_close(found, module(x)[0] + 1)


def test_the_second_derivative_is_refused() -> None:
    x = _inputs()[0]
    (gradient,) = torch.autograd.grad(_alone(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


# Between two graphs Dynamo looks at .grad of a tensor that has none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_ring_is_left_out_of_graphs_and_says_so() -> None:
    x = _inputs()[0]
    with pytest.raises(Exception, match="exchanges rows from Python"):
        torch.compile(_over_a_ring, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(torch.compile(_over_a_ring, backend="aot_eager")(x), _over_a_ring(x))
