"""What others compute on the same shapes; imported where the user has it, said where not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dilated_attention_pytorch import cost
from dilated_attention_pytorch.schedule import Problem

from .cases import Case

Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def dense(case: Case) -> Call:
    """PyTorch's scaled_dot_product_attention over the same n."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)), is_causal=case.is_causal
        )
        return out.transpose(1, 2)

    return attend


def equal_flops_batch(case: Case, rows: int = 2048) -> int:
    """Sequences of `rows` whose dense attention does as many FLOPs as the case."""
    problem = Problem(case.pattern, case.n, case.heads, case.heads, case.is_causal)
    dense_pairs = rows * (rows + 1) // 2 if case.is_causal else rows * rows
    return max(1, round(cost.visible_pairs(problem) / (dense_pairs * case.heads)))


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


def torchscale(case: Case) -> Call:
    """torchscale's DilatedAttention without projections, over PyTorch's flash kernel.

    Raises:
        ModuleNotFoundError: torchscale, or einops that it needs, is not importable.
    """

    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, causal: bool = False, **options: Any
    ) -> Any:
        out, lse = _FlashAttention.apply(q, k, v, causal)
        return out, lse, None

    stand_in = ModuleType("flash_attn.flash_attn_interface")
    stand_in.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
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

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        flat = (x.flatten(2) for x in (query, key, value))
        out = module(*flat, is_causal=case.is_causal)[0]
        return out.unflatten(2, (case.heads, case.head_dim))

    return attend
