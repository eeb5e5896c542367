"""cuDNN's attention on strided views: what the branches cost alone, without being mixed.

One call of PyTorch's cuDNN op for each (branch, offset), full segments folded into its batch and
the ragged last segment in a call of its own. Backward is the op's own, fed the global out and lse,
which makes each call's gradients the exact share of its branch; they are not summed. out, dout and
lse are given to it compact, as its own forward lays them out, and that copy is not timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..candidate import AbsentError, Answer, Candidate
from ..cases import Case
from ..inputs import Inputs
from .views import View, views


@dataclass(frozen=True, slots=True)
class _Call:
    """Arguments of one (branch, offset): inputs as views, the global results compact."""

    view: View
    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    dout: Tensor
    lse: Tensor
    found: tuple[Any, ...]

    def forward(self, *, is_causal: bool) -> tuple[Any, ...]:
        return _forward(self.query, self.key, self.value, is_causal=is_causal)

    def backward(self, *, is_causal: bool) -> tuple[Tensor, Tensor, Tensor]:
        _, _, bounds_q, bounds_k, most_q, most_k, seed, offset = self.found
        gradients: tuple[Tensor, Tensor, Tensor]
        gradients = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            *(self.dout, self.query, self.key, self.value, self.out, self.lse),
            *(seed, offset, None, bounds_q, bounds_k, most_q, most_k, 0.0, is_causal),
        )
        return gradients


def _forward(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> tuple[Any, ...]:
    """(out, lse, bounds of query and key, longest of each, seed, offset)."""
    found: tuple[Any, ...] = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query, key, value, None, True, 0.0, is_causal, False
    )
    return found[:8]


def strided(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
    """The attention of every branch, one cuDNN call for each offset.

    Raises:
        AbsentError: no CUDA device, a dtype or head dim that cuDNN does not serve, or heads that
            do not step evenly.
    """
    if inputs.query.device.type != "cuda":
        raise AbsentError(f"cuDNN needs a CUDA device, not {inputs.query.device.type}")
    if case.dtype not in (torch.float16, torch.bfloat16) or case.head_dim > 128:
        raise AbsentError(f"cuDNN does not serve {case.dtype_name}, d = {case.head_dim}")
    # cuDNN refuses a single key; what such a segment costs is nothing beside the others.
    found = list(views(case))
    calls = [_prepare(case, inputs, answer, view) for view in found if view.rows > 1]
    is_causal = case.is_causal

    def forward() -> None:
        for call in calls:
            call.forward(is_causal=is_causal)

    def forward_backward() -> None:
        forward()
        for call in calls:
            call.backward(is_causal=is_causal)

    def values() -> Mapping[str, Tensor]:
        gradients = [torch.zeros_like(inputs.query, dtype=torch.float32) for _ in range(3)]
        for call in calls:
            for total, part in zip(gradients, call.backward(is_causal=is_causal), strict=True):
                call.view.of(total).add_(part)
        return dict(zip(("dq", "dk", "dv"), gradients, strict=True))

    return Candidate(
        forward,
        forward_backward if case.backward else None,
        case.flops,
        inputs.result_bytes,
        values if case.backward and len(calls) == len(found) else None,
        note=f"{len(calls)} cuDNN calls, branches neither mixed nor summed",
    )


def _prepare(case: Case, inputs: Inputs, answer: Answer, view: View) -> _Call:
    query, key, value = (view.of(x) for x in (inputs.query, inputs.key, inputs.value))
    found = _forward(query, key, value, is_causal=case.is_causal)
    out, lse = found[:2]
    return _Call(
        view,
        *(query, key, value),
        # cuDNN's plans are cached by the inputs alone: out and dout must have this very layout.
        torch.empty_like(out).copy_(view.of(answer.out)),
        torch.empty_like(out).copy_(view.of(inputs.dout)),
        torch.empty_like(lse).copy_(view.of(answer.lse).reshape(lse.shape)),
        found,
    )
