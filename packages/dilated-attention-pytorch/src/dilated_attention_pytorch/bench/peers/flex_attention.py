"""FlexAttention, compiled: the same operator as a user of it would write it.

One call for each (branch, offset) on strided views with the segments in the batch and no mask (a
block mask cannot say residues: every block of 128 tokens holds them all), then one compiled mix of
the branches by lse, with gradients through lse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention.flex_attention import (
    AuxRequest,
    create_block_mask,
    flex_attention,
)

from ..candidate import AbsentError, Answer, Candidate
from ..cases import Case
from ..inputs import Inputs


def flex(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
    """All branches by FlexAttention, and their mix.

    Raises:
        AbsentError: no CUDA device, or segments that do not fold into a batch of strided views.
    """
    device = inputs.query.device
    if device.type != "cuda":
        raise AbsentError(f"timed on CUDA only, not on {device.type}")
    shapes = _foldable(case)
    attend: Any = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    mix = torch.compile(_mix, dynamic=False, fullgraph=True)
    leaves = inputs.leaves

    def mask(rows: int) -> Any:
        if not case.is_causal:
            return None
        return create_block_mask(lambda b, h, i, j: i >= j, None, None, rows, rows, device)

    masks = {rows: mask(rows) for rows in {w // r for w, r in shapes}}

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        outs, lses = [], []
        for w, r in shapes:
            folded = [_fold(x, w, r) for x in (query, key, value)]
            for offset in range(r):
                views = (x[:, :, offset, :, offset].transpose(1, 2) for x in folded)
                # Each branch is a graph of its own, with gradients and without.
                with torch._dynamo.config.patch(recompile_limit=64):
                    out, aux = attend(
                        *views, block_mask=masks[w // r], return_aux=AuxRequest(lse=True)
                    )
                outs.append(out)
                lses.append(aux.lse)
        mixed: Tensor = mix(outs, lses, shapes, query.shape)
        return mixed

    def forward() -> Tensor:
        with torch.no_grad():
            return run(inputs.query, inputs.key, inputs.value)

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(*leaves), leaves, inputs.dout)

    def values() -> Mapping[str, Tensor]:
        out = run(*leaves)
        gradients = torch.autograd.grad(out, leaves, inputs.dout)
        return dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *gradients), strict=True))

    return Candidate(
        forward,
        forward_backward,
        case.flops,
        inputs.result_bytes,
        values,
        note="one compiled call for each (branch, offset) on strided views, and a compiled mix",
    )


def _foldable(case: Case) -> list[tuple[int, int]]:
    """(w, r) of each branch, w clipped to n."""
    shapes = [
        (case.problem.segment_length(i), branch.dilation_rate)
        for i, branch in enumerate(case.pattern.branches)
    ]
    if case.pattern.rule != "longnet":
        raise AbsentError(f"written for the rule 'longnet', not {case.pattern.rule!r}")
    for w, r in shapes:
        if case.n % w or w % r or case.heads % r:
            raise AbsentError(
                f"segments do not fold into a batch of views: w = {w} does not divide {case.n}, or "
                f"r = {r} not w or H = {case.heads}"
            )
    return shapes


def _fold(tensor: Tensor, w: int, r: int) -> Tensor:
    """(1, n, H, ...) as (segments, rows, r, H / r, r, ...): row and head residues apart."""
    _, n, heads = tensor.shape[:3]
    return tensor.view(n // w, w // r, r, heads // r, r, *tensor.shape[3:])


def _mix(
    outs: list[Tensor], lses: list[Tensor], shapes: list[tuple[int, int]], size: torch.Size
) -> Tensor:
    """`sum_i exp(lse_i - lse) out_i` over the branches that select a row."""
    branches = []
    place = 0
    for w, r in shapes:
        out = outs[0].new_zeros(size, dtype=torch.float32)
        lse = lses[0].new_full(size[:3], -torch.inf)
        for offset in range(r):
            _fold(out, w, r)[:, :, offset, :, offset] = outs[place].transpose(1, 2).float()
            _fold(lse, w, r)[:, :, offset, :, offset] = lses[place].transpose(1, 2)
            place += 1
        branches.append((out, lse))
    total = torch.stack([lse for _, lse in branches]).logsumexp(0)
    mixed = sum(torch.exp(lse - total)[..., None] * out for out, lse in branches)
    assert isinstance(mixed, Tensor)
    return mixed.to(outs[0].dtype)
