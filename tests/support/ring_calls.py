"""Run a drawn case on the package, and judge the result by the oracle's tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle import Report, Result, check_result
from dilated_attention_oracle.adapters.naive import naive
from dilated_attention_oracle.adapters.numpy_adapter import reference
from dilated_attention_oracle.adapters.torch_adapter import pattern_factory
from dilated_attention_oracle.precision import lse_dtype, round_to
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import (
    Branch,
    DilationPattern,
    dilated_attention,
    ring_dilated_attention,
)
from dilated_attention_pytorch.kernels import eager

from .oracle_shares import SHARES

Array = npt.NDArray[Any]
ARRAYS = ("out", "lse", "dq", "dk", "dv")
library_pattern = pattern_factory(DilationPattern, Branch)


@dataclass(frozen=True)
class Ring:
    """A simulated ring and how it computes.

    Attributes:
        shard_lengths: rows per rank; None for `dilated_attention`, which has no ring.
        layout: `sharded` or `replicated`.
        order: `contiguous`, `zigzag`, or the global positions of the stored rows.
        buffer_shards: bound on receive buffers.
        deterministic: ask for repeatable bits.
        block: side of the tiles of `eager`.
        backend: `eager` computes every case, and contains what is not finite; only it serves R > 1.
    """

    shard_lengths: tuple[int, ...] | None = None
    layout: str = "sharded"
    order: str | tuple[int, ...] = "contiguous"
    buffer_shards: int = 2
    deterministic: bool = False
    block: int = 256
    backend: str = "eager"

    @property
    def size(self) -> int:
        """R."""
        return 1 if self.shard_lengths is None else len(self.shard_lengths)

    @property
    def kind(self) -> str:
        """What the summary calls it."""
        if self.shard_lengths is not None:
            return self.layout
        return "one device" if self.backend == "eager" else f"one device, {self.backend}"

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of `ring_dilated_attention`."""
        order = self.order if isinstance(self.order, str) else np.array(self.order, dtype=np.int64)
        return {
            "ring_size": self.size,
            "shard_lengths": self.shard_lengths,
            "layout": self.layout,
            "order": order,
            "buffer_shards": self.buffer_shards,
        }


ONE_DEVICE = Ring()


def even_ring(n: int, size: int, **options: Any) -> Ring:
    """A ring of `size` ranks with shards as even as possible."""
    return Ring(tuple(n // size + (rank < n % size) for rank in range(size)), **options)


def tensors(case: Case, *, requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """query, key and value, rounded to the case's dtype."""
    dtype = getattr(torch, case.dtype)
    q, k, v = (torch.tensor(round_to(x, case.dtype), dtype=dtype) for x in case.tensors)
    return tuple(x.requires_grad_(requires_grad) for x in (q, k, v))  # type: ignore[return-value]


def keywords(case: Case) -> dict[str, Any]:
    """The case's options as tensors."""
    options = {name: value for name, value in case.options.items() if value is not None}
    if case.key_mask is not None:
        options["key_mask"] = torch.tensor(case.key_mask)
    if case.cu_seqlens is not None:
        options["cu_seqlens"] = torch.tensor(case.cu_seqlens, dtype=torch.int32)
    return options


def attend(
    case: Case, ring: Ring, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """(out, lse) of the package."""
    options = keywords(case) | {"deterministic": ring.deterministic, "return_lse": True}
    options["backend"] = ring.backend
    pattern = library_pattern(case.pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "BLOCK", ring.block)
        if ring.shard_lengths is None:
            found: tuple[Tensor, Tensor] = dilated_attention(query, key, value, pattern, **options)
        else:
            found = ring_dilated_attention(query, key, value, pattern, **options, **ring.options)
    return found


def differentiate(
    case: Case,
    ring: Ring,
    results: tuple[Tensor, Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, ...]:
    """(dq, dk, dv) of `sum(dout * out) + sum(dlse * lse)`."""
    out, lse = results
    pairs = [(out, torch.tensor(round_to(case.dout, case.dtype), dtype=out.dtype))]
    # torchscale's detached mix returns an lse without gradient.
    if lse.requires_grad:
        dlse = round_to(case.dlse, lse_dtype(case.dtype))
        pairs.append((lse, torch.tensor(dlse, dtype=lse.dtype)))
    targets, gradients = zip(*pairs, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "BLOCK", ring.block)
        return torch.autograd.grad(targets, inputs, gradients)


def array(tensor: Tensor) -> Array:
    """The tensor as float64."""
    return tensor.detach().to(torch.float64).numpy()


def run(case: Case, ring: Ring = ONE_DEVICE) -> Result:
    """Forward and backward of the package; also holds dtypes and shapes to the contract."""
    inputs = tensors(case, requires_grad=True)
    out, lse = attend(case, ring, *inputs)
    assert out.dtype == inputs[0].dtype
    assert out.shape == inputs[0].shape
    assert lse.dtype == getattr(torch, lse_dtype(case.dtype))
    assert lse.shape == out.shape[:-1]
    gradients = differentiate(case, ring, (out, lse), inputs)
    for gradient, tensor in zip(gradients, inputs, strict=True):
        assert gradient.dtype == tensor.dtype
        assert gradient.shape == tensor.shape
    return Result._make((*(array(x) for x in (out, lse, *gradients)), None, None))


def expected(case: Case) -> tuple[Result, Result]:
    """The oracle's result and the naive one."""
    arguments = (*case.tensors, case.pattern, case.dtype)
    options = {**case.gradients, **case.options}
    return reference(*arguments, **options), naive(*arguments, **options)


def judge(case: Case, ring: Ring, actual: Result, transport: str = "") -> dict[str, Report]:
    """AssertionError where the result is further from the oracle than the dtype allows."""
    want, plain = expected(case)
    reports = check_result(actual, want, plain, case.dtype)
    SHARES.note(f"{ring.kind}{transport}", case.dtype, ring.size, reports)
    return reports


def equals_oracle(case: Case, ring: Ring = ONE_DEVICE) -> dict[str, Report]:
    """Run and judge."""
    return judge(case, ring, run(case, ring))


def fixed_case(n: int, pattern: Any, *, heads: int = 4, kv_heads: int = 2, **fields: Any) -> Case:
    """A case of normal numbers, the same in every run."""
    generator = np.random.default_rng([n, heads, kv_heads])
    batch, width = fields.pop("batch", 1), fields.pop("width", 4)
    query, key = (batch, n, heads, width), (batch, n, kv_heads, width)
    q, k, v, dout = (generator.standard_normal(shape) for shape in (query, key, key, query))
    case = Case(q, k, v, dout, generator.standard_normal(query[:3]), pattern)
    return replace(case, **fields)
