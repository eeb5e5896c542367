"""The adapter for PyTorch functions, on a dense function of three lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, check_result
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.adapters.torch_adapter import TorchImplementation, pattern_factory

SUPPORTS = frozenset({"longnet", "float64", "bfloat16", "gradients", "lse_gradient", "scale"})
PATTERN = Pattern(((8, 1),))
Q, K, V, DOUT = np.random.default_rng(0).standard_normal((4, 2, 8, 3, 4))
DLSE = np.random.default_rng(1).standard_normal((2, 8, 3))


def dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pattern: Pattern,
    *,
    return_lse: bool,
    scale: float | None = None,
    times: float = 1.0,
) -> Any:
    """Full attention: right for one branch that covers everything."""
    scores = torch.einsum("bphd,bkhd->bphk", query, key) * (scale or query.shape[3] ** -0.5)
    out = torch.einsum("bphk,bkhd->bphd", scores.softmax(dim=3), value) * times
    return out, scores.float().logsumexp(dim=3) if query.dtype != torch.float64 else (
        scores.logsumexp(dim=3)
    )


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("dlse", [None, DLSE])
def test_results_and_gradients_are_those_of_the_function(dtype: str, dlse: Any) -> None:
    implementation = TorchImplementation(dense, lambda pattern: pattern, supports=SUPPORTS)
    actual = implementation(Q, K, V, PATTERN, dtype=dtype, dout=DOUT, dlse=dlse, scale=0.3)
    options: dict[str, Any] = {"dout": DOUT, "dlse": dlse, "scale": 0.3}
    plain = naive(Q, K, V, PATTERN, dtype, **options)
    want = reference(Q, K, V, PATTERN, dtype, **options)
    actual = actual._replace(lse=plain.lse) if dtype == "bfloat16" else actual
    check_result(actual, want, plain, dtype)


def test_what_the_function_lacks_raises() -> None:
    implementation = TorchImplementation(dense, lambda pattern: pattern, supports=SUPPORTS)
    with pytest.raises(TypeError, match="is_causal"):
        implementation(Q, K, V, PATTERN, is_causal=True)
    with pytest.raises(TypeError, match="layout"):
        implementation(Q, K, V, PATTERN, layout="replicated")
    for needs in ({"dtype": "float32"}, {"ring_size": 2}):
        with pytest.raises(ValueError, match="not supported"):
            implementation(Q, K, V, PATTERN, **needs)
    silent = TorchImplementation(dense, lambda p: p, supports=SUPPORTS - {"gradients"})
    with pytest.raises(ValueError, match="gradients"):
        silent(Q, K, V, PATTERN, dout=DOUT)


def test_fixed_keywords_reach_the_function() -> None:
    implementation = TorchImplementation(dense, lambda p: p, supports=SUPPORTS, times=0.0)
    assert (implementation(Q, K, V, PATTERN).out == 0.0).all()


def test_ring_function_takes_over() -> None:
    seen: list[dict[str, Any]] = []

    def ring(*tensors: Any, ring_size: int, **options: Any) -> Any:
        seen.append({"ring_size": ring_size, **options})
        options.pop("order", None)
        return dense(*tensors, **options)

    implementation = TorchImplementation(
        dense,
        lambda pattern: pattern,
        supports=SUPPORTS | {"ring"},
        ring_function=ring,
        rows_received=lambda: np.array([1, 2]),
    )
    implementation(Q, K, V, PATTERN)
    assert seen == []
    result = implementation(Q, K, V, PATTERN, ring_size=2)
    implementation(Q, K, V, PATTERN, ring_size=1, order="zigzag")
    assert [call["ring_size"] for call in seen] == [2, 1]
    assert result.rows_received is not None
    assert result.rows_received.tolist() == [1, 2]


class Named:
    """Records how a pattern class is called."""

    @staticmethod
    def longnet(*arguments: Any) -> Any:
        return "longnet", arguments

    @staticmethod
    def head_groups(*arguments: Any) -> Any:
        return "head_groups", arguments

    @staticmethod
    def torchscale(*arguments: Any, **switches: bool) -> Any:
        return "torchscale", arguments, switches

    @staticmethod
    def from_branches(branches: Any, *, offsets: Any) -> Any:
        return "table", branches, offsets


def test_patterns_are_rebuilt() -> None:
    build = pattern_factory(Named, lambda w, r: (w, r))
    branches = ((4, 1), (8, 2))
    assert build(Pattern(branches)) == ("longnet", ((4, 8), (1, 2)))
    assert build(Pattern(branches, "head_groups")) == ("head_groups", ((4, 8), (1, 2)))
    table = ((0, None), (1, 1))
    assert build(Pattern(branches, "table", table)) == ("table", list(branches), table)
    switches = {"phantom_keys": True, "detach_mix": False, "shift_rows": True}
    rebuilt = build(Pattern(branches, "torchscale", None, True, False, True))
    assert rebuilt == ("torchscale", ((4, 8), (1, 2)), switches)
