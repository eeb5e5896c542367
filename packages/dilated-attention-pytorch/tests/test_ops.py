"""The ops of `torch.library`: schema, fakes, autograd, and torch.compile on top of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dilated_attention_pytorch import (
    DilatedAttention,
    DilationPattern,
    ImprovedMultiheadDilatedAttention,
    MultiheadDilatedAttention,
    dilated_attention,
)
from dilated_attention_pytorch.ring import ops

PATTERN = DilationPattern.longnet([4, 16], [1, 2])
SWITCHED = DilationPattern.torchscale(
    [6, 40], [4, 3], phantom_keys=True, detach_mix=True, shift_rows=True
)


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


@pytest.mark.parametrize(
    "module",
    [
        DilatedAttention([4, 16], [1, 2]),
        MultiheadDilatedAttention(16, 4, [1, 2], [4, 16]),
        ImprovedMultiheadDilatedAttention(16, 4, [1, 2], [4, 16]),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_compile_to_one_graph(module: nn.Module) -> None:
    module.eval()
    shape = (2, 20, 4, 8) if isinstance(module, DilatedAttention) else (2, 20, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    arguments = (x, x, x) if isinstance(module, DilatedAttention) else (x,)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*arguments), module(*arguments)
    if isinstance(expected, tuple):
        found, expected = found[0], expected[0]
    torch.testing.assert_close(found, expected)


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
