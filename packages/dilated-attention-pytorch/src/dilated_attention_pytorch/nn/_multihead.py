"""The common part of the multihead modules: sizes, output projection, sub-LN, checks."""

from __future__ import annotations

import torch
from torch import nn

from ._base import AttentionModule, check_same_kind, reject_mask
from ._engine import LocalAttention


class MultiheadModule(AttentionModule):
    """Projections around an attention core, `(b, n, embed_dim)` in and out.

    `out = out_proj(q_ln(attend(project(query, key, value))))`; `q_ln` is the sub-LayerNorm of
    MAGNETO (arXiv 2210.06423), left out with `layer_norm=False`. A subclass makes the input
    projections in `project` and fills in `_add_input_projections`.

    Args:
        attention: the call of the attention function.
        embed_dim: E, a multiple of `num_heads`.
        num_heads: query heads H.
        num_kv_heads: key/value heads, a divisor of `num_heads`; `num_heads` where None.
        bias: biases in all projections.
        layer_norm: own `q_ln` and `k_ln`.
        layer_norm_eps: their epsilon.
        gamma_init: gain of the initialisation.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: sizes that are not positive or do not divide, or a pattern that cannot serve
            `num_heads` heads.
    """

    q_ln: nn.LayerNorm | None
    k_ln: nn.LayerNorm | None
    _trains_k_ln = True

    def __init__(
        self,
        attention: LocalAttention,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None,
        bias: bool,
        layer_norm: bool,
        layer_norm_eps: float,
        gamma_init: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(attention)
        for name, value in (
            ("embed_dim", embed_dim),
            ("num_heads", num_heads),
            ("layer_norm_eps", layer_norm_eps),
            ("gamma_init", gamma_init),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads})"
            )
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(
                f"num_kv_heads must be a positive divisor of num_heads ({num_heads}), got "
                f"{kv_heads}"
            )
        attention.pattern.offsets(num_heads)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.head_dim = embed_dim // num_heads
        self.kv_dim = kv_heads * self.head_dim
        self.gamma_init = gamma_init
        self._add_input_projections(bias, device, dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias, device=device, dtype=dtype)
        if layer_norm:
            self.q_ln = nn.LayerNorm(embed_dim, layer_norm_eps, device=device, dtype=dtype)
            self.k_ln = nn.LayerNorm(self.kv_dim, layer_norm_eps, device=device, dtype=dtype)
            self.k_ln.requires_grad_(self._trains_k_ln)
        else:
            self.q_ln = None
            self.k_ln = None
        self.reset_parameters()

    def _add_input_projections(
        self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        raise NotImplementedError

    def project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The projected `(b, n, E)`, `(b, n, kv_dim)`, `(b, n, kv_dim)`."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        raise NotImplementedError

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        *,
        key_padding_mask: torch.Tensor | None,
        need_weights: bool,
        attn_mask: torch.Tensor | None,
        is_causal: bool,
        cu_seqlens: torch.Tensor | None,
        seed: int | torch.Tensor | None,
    ) -> torch.Tensor:
        """The forward of every multihead module; key defaults to query, value to key."""
        if need_weights:
            raise ValueError(
                "need_weights=True is not served: the n x n attention weights are never formed. "
                "Pass need_weights=False"
            )
        reject_mask("attn_mask", attn_mask)
        key = query if key is None else key
        value = key if value is None else value
        check_same_kind(self.out_proj.weight, query=query, key=key, value=value)
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.ndim != 3 or tensor.shape[-1] != self.embed_dim:
                raise ValueError(
                    f"{name} must have shape (b, n, {self.embed_dim}), got {tuple(tensor.shape)}"
                )
        q, k, v = self.project(query, key, value)
        out = self.attention(
            q.unflatten(-1, (self.num_heads, self.head_dim)),
            k.unflatten(-1, (self.num_kv_heads, self.head_dim)),
            v.unflatten(-1, (self.num_kv_heads, self.head_dim)),
            is_causal=is_causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
            training=self.training,
            seed=seed,
        ).flatten(-2)
        if self.q_ln is not None:
            out = self.q_ln(out)
        projected: torch.Tensor = self.out_proj(out)
        return projected

    def projections(self) -> str:
        """The input projections in words."""
        raise NotImplementedError

    def explain(
        self,
        n: int,
        *,
        batch_size: int = 1,
        dtype: torch.dtype | None = None,
        is_causal: bool = False,
    ) -> str:
        """How a call would run: projections, function, backend, exchange, FLOPs, bytes, and why.

        Args:
            n: global sequence length.
            batch_size: b.
            dtype: of query, key and value after projection; that of the parameters where None.
            is_causal: as in the call.

        Raises:
            ValueError: values that the call would refuse.
        """
        weight = self.out_proj.weight
        plan = self.attention.explain(
            n,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            num_kv_heads=self.num_kv_heads,
            batch_size=batch_size,
            dtype=weight.dtype if dtype is None else dtype,
            device=weight.device,
            is_causal=is_causal,
        )
        return f"module     {type(self).__name__}, {self.projections()}\n{plan}"

    def extra_repr(self) -> str:
        """Sizes, then the options of the attention."""
        sizes = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
        if self.num_kv_heads != self.num_heads:
            sizes += f", num_kv_heads={self.num_kv_heads}"
        return f"{sizes}, {super().extra_repr()}"


def init_linear(linear: nn.Linear, gains: tuple[tuple[int, float], ...]) -> None:
    """Xavier-normal rows, block by block as (rows, gain); biases zero."""
    for weight, (_, gain) in zip(
        linear.weight.detach().split([rows for rows, _ in gains]), gains, strict=True
    ):
        nn.init.xavier_normal_(weight, gain)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
