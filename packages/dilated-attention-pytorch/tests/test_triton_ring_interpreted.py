"""Rings on the Triton kernels under Triton's interpreter: `python -m nox -s interpret`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, round_to
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import ring_dilated_attention
from dilated_attention_pytorch.kernels import select
from support.own_sequences import own_case
from support.ring_calls import Ring, equals_oracle, even_ring, library_pattern

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in the session 'interpret' only", allow_module_level=True)

from dilated_attention_pytorch.kernels.triton import launch, part_launch
from dilated_attention_pytorch.kernels.triton.blocks import Blocks

# Triton 3.6's interpreter turns one-element arrays into ints in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

BLOCKS = Blocks(own=16, other=4, warps=4, stages=1)
# name: (n, (w, r) of the branches, rule, switches, H, H_kv, ring, options)
CASES: dict[str, tuple[int, tuple[tuple[int, int], ...], str, int, int, Ring, dict[str, Any]]] = {
    "nested": (26, ((8, 1), (16, 2), (26, 4)), "longnet", 2, 2, even_ring(26, 2), {}),
    "grouped, zigzag": (
        *(36, ((16, 1), (36, 2)), "longnet", 2, 1, even_ring(36, 2, order="zigzag")),
        {"is_causal": True},
    ),
    "uneven, one piece a row": (
        *(36, ((10, 3), (36, 2)), "torchscale", 3, 1),
        Ring((11, 0, 4, 21), buffer_shards=2),
        {"is_causal": True},
    ),
    "any order": (
        *(28, ((8, 1), (28, 2)), "longnet", 2, 2),
        Ring((15, 13), order=(*range(0, 28, 2), *range(27, 14, -2), *range(1, 14, 2))),
        {"is_causal": True},
    ),
    "replicated": (
        *(34, ((16, 1), (34, 2)), "head_groups", 4, 2, even_ring(34, 2, layout="replicated")),
        {"is_causal": True},
    ),
    "documents, mask, dropout": (
        *(35, ((9, 2), (20, 3)), "longnet", 2, 2, even_ring(35, 2)),
        {
            "is_causal": True,
            "cu_seqlens": np.array([0, 15, 15, 35]),
            "key_mask": np.arange(35)[None] % 3 != 0,
            "dropout_p": 0.3,
            "seed": 2**62 + 3,
        },
    ),
}


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles meet in a short sequence, and `triton` serves a CPU."""
    for module in (launch, part_launch):
        for name in ("forward_blocks", "lanes_forward_blocks", "dquery_blocks", "dkey_blocks"):
            monkeypatch.setattr(module, name, lambda head_dim, dtype: BLOCKS, raising=False)
    monkeypatch.setitem(
        select._BACKENDS,
        "triton",
        select.Entry(lambda request: None, lambda device: (part_launch, launch)),
    )


def _case(name: str, dtype: str) -> tuple[Case, Ring]:
    n, branches, rule, heads, kv_heads, ring, options = CASES[name]
    rng = np.random.default_rng(len(name))
    q, k, v, dout = (rng.standard_normal((1, n, h, 8)) for h in (heads, kv_heads, kv_heads, heads))
    dlse = round_to(rng.standard_normal((1, n, heads)), "float32")
    return Case(q, k, v, dout, dlse, Pattern(branches, rule), dtype, **options), ring


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in CASES),
        *((name, "float16") for name in ("grouped, zigzag", "documents, mask, dropout")),
    ],
)
def test_parts_equal_the_oracle(name: str, dtype: str) -> None:
    case, ring = _case(name, dtype)
    equals_oracle(case, replace(ring, backend="triton"))


@pytest.mark.parametrize("layout", ["sharded", "replicated"])
def test_torchscale_modes_equal_the_oracle(layout: str) -> None:
    switches = {"phantom_keys": True, "detach_mix": True, "shift_rows": True}
    case, _ = _case("nested", "float32")
    pattern = Pattern(((7, 2), (20, 3)), "torchscale", **switches)
    case = replace(case, pattern=pattern, is_causal=True)
    equals_oracle(case, even_ring(26, 2, layout=layout, backend="triton"))


@pytest.mark.parametrize("name", ["nothing travels, causal", "ladder, causal", "documents"])
def test_own_rows_as_whole_sequences_equal_the_oracle(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = launch.forward
    monkeypatch.setattr(
        launch, "forward", lambda *given, **how: calls.append(how) or original(*given, **how)
    )
    case, ring = own_case(name, "float16")
    equals_oracle(case, replace(ring, backend="triton"))
    assert len(calls) == ring.size


def test_results_repeat_and_strides_do_not_matter() -> None:
    case, ring = _case("nested", "float32")

    def run(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        pattern = library_pattern(case.pattern)
        options = ring.options | {"is_causal": True, "backend": "triton", "return_lse": True}
        out, lse = ring_dilated_attention(*inputs, pattern, **options)
        return [out, lse, *torch.autograd.grad((out.sum() + lse.sum()), inputs)]

    plain = [torch.tensor(x, dtype=torch.float32).requires_grad_() for x in case.tensors]
    turned = [
        x.detach().transpose(1, 3).contiguous().transpose(1, 3).requires_grad_() for x in plain
    ]
    for once, again, other in zip(run(plain), run(plain), run(turned), strict=True):
        assert torch.equal(once, again)
        assert torch.equal(once, other)
