"""Others' packages on the same shapes; imported where the user has them, said where not."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dilated_attention_pytorch.bench.candidate import AbsentError, Answer, Candidate
from dilated_attention_pytorch.bench.cases import Case
from dilated_attention_pytorch.bench.inputs import Inputs


class _FlashAttention(torch.autograd.Function):
    """PyTorch's own flash kernel under the signature that torchscale calls."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Any:
        found = torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False
        )
        out, lse, seed, offset, _ = found
        ctx.save_for_backward(q, k, v, out, lse, seed, offset)
        ctx.causal = causal
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor, _: Tensor) -> Any:
        q, k, v, out, lse, seed, offset = ctx.saved_tensors
        gradients = torch.ops.aten._flash_attention_backward(
            dout, q, k, v, out, lse, None, None, q.shape[1], k.shape[1], 0.0, ctx.causal, seed,
            offset,
        )  # fmt: skip
        return (*gradients, None)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, **options: Any) -> Any:
    out, lse = _FlashAttention.apply(q, k, v, causal)
    return out, lse, None


def torchscale(case: Case, inputs: Inputs, answer: Answer) -> Candidate:
    """torchscale's DilatedAttention without projections, over PyTorch's flash kernel.

    It computes its own operator (unmasked padding, detached mix, offsets by head groups), so its
    times compare and its numbers do not.

    Raises:
        AbsentError: no CUDA device.
        ModuleNotFoundError: torchscale, or einops that it needs, is not importable.
    """
    if inputs.query.device.type != "cuda":
        raise AbsentError(f"the flash kernel needs a CUDA device, not {inputs.query.device.type}")
    stand_in = ModuleType("flash_attn.flash_attn_interface")
    stand_in.flash_attn_func = _attend  # type: ignore[attr-defined]
    sys.modules.setdefault("flash_attn", ModuleType("flash_attn"))
    sys.modules.setdefault("flash_attn.flash_attn_interface", stand_in)
    from torchscale.component.dilated_attention import DilatedAttention

    arguments = SimpleNamespace(
        flash_attention=True,
        segment_length=[b.segment_length for b in case.pattern.branches],
        dilated_ratio=[b.dilation_rate for b in case.pattern.branches],
        multiway=False,
        xpos_rel_pos=False,
        layernorm_eps=1e-5,
        seq_parallel=False,
    )
    width = case.heads * case.head_dim
    module = DilatedAttention(arguments, width, case.heads, self_attention=True)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(module, name, nn.Identity())
    leaves = inputs.leaves

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        flat = (x.flatten(2) for x in (query, key, value))
        out: Tensor = module(*flat, is_causal=case.is_causal)[0]
        return out.view(1, case.n, case.heads, case.head_dim)

    def forward() -> Tensor:
        with torch.no_grad():
            return attend(inputs.query, inputs.key, inputs.value)

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*leaves), leaves, inputs.dout)

    return Candidate(
        forward,
        forward_backward if case.backward else None,
        case.flops,
        inputs.result_bytes,
        note="its module without projections, over PyTorch's flash kernel",
    )
