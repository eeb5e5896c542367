"""PyTorch's dense attention: over the same sequence, and over rows of the same FLOPs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ... import cost
from ...pattern import DilationPattern
from ...schedule import Problem
from ..candidate import Answer, Candidate
from ..cases import Case
from ..inputs import Inputs


def dense_same_n(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
    """`scaled_dot_product_attention` over the whole sequence."""
    return _dense(case, inputs, f"dense attention over {case.n:,} tokens")


def dense_same_flops(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
    """`scaled_dot_product_attention` over sequences as long as the first branch's rows.

    As many of them as do the case's FLOPs; nothing is strided and nothing mixed.
    """
    rows = case.problem.segment_length(0) // case.pattern.branches[0].dilation_rate
    problem = _dense_problem(case, rows)
    batch = max(1, round(case.flops / cost.attention_flops(problem, 1, case.head_dim)))
    shape = (batch, rows, case.heads, case.head_dim)
    same = Inputs(
        *(torch.randn(shape, dtype=case.dtype, device=inputs.query.device) for _ in range(4))
    )
    return _dense(case, same, f"dense attention over {batch} sequences of {rows:,}, nothing mixed")


def _dense_problem(case: Case, n: int) -> Problem:
    pattern = DilationPattern.longnet([n], [1])
    return Problem(pattern, n, case.heads, case.heads, case.is_causal)


def _dense(case: Case, inputs: Inputs, note: str) -> Candidate:
    batch, n = inputs.query.shape[:2]
    leaves = inputs.leaves

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=case.is_causal)
        return out.transpose(1, 2)

    def forward() -> Tensor:
        with torch.no_grad():
            return attend(inputs.query, inputs.key, inputs.value)

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*leaves), leaves, inputs.dout)

    return Candidate(
        forward,
        forward_backward if case.backward else None,
        cost.attention_flops(_dense_problem(case, n), batch, case.head_dim),
        inputs.result_bytes,
        note=note,
    )
