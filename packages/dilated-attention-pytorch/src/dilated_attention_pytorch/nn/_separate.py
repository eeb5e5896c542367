"""Separate projections of query, key and value."""

from __future__ import annotations

import torch
from torch import nn

from ._multihead import MultiheadModule, init_linear


class SeparateProjections(MultiheadModule):
    """`q_proj`, `k_proj`, `v_proj`, and `q_ln`, `k_ln` on q and k before the heads are split.

    `q_ln` is used twice, on q and on the output of the attention, as history had it: one
    parameter, two roles. All four projections start with gain `gamma_init`.
    """

    def _add_input_projections(
        self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        self.q_proj = nn.Linear(self.embed_dim, self.embed_dim, bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(self.embed_dim, self.kv_dim, bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(self.embed_dim, self.kv_dim, bias, device=device, dtype=dtype)

    def project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The projected `(b, n, E)`, `(b, n, kv_dim)`, `(b, n, kv_dim)`."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if self.q_ln is not None and self.k_ln is not None:
            q, k = self.q_ln(q), self.k_ln(k)
        return q, k, v

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        is_causal: bool = False,
        average_attn_weights: bool = True,
        *,
        cu_seqlens: torch.Tensor | None = None,
        seed: int | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend over `(b, n, embed_dim)`.

        Args:
            query: `(b, n, embed_dim)`.
            key: the same shape; query where None.
            value: the same shape; key where None.
            key_padding_mask: `(b, n)` bool, True = ignore the key, as in `nn.MultiheadAttention`.
            need_weights: not served; True raises.
            attn_mask: not served; anything but None raises.
            is_causal: a token sees itself and earlier tokens only.
            average_attn_weights: shapes the weights that `need_weights` would return, nothing
                else, as in `nn.MultiheadAttention`.
            cu_seqlens: `(docs + 1,)` int32 boundaries of packed documents, b = 1.
            seed: of the dropout mask; None draws one.

        Returns:
            `(b, n, embed_dim)`.

        Raises:
            ValueError: wrong shapes or values, `need_weights=True`, or an `attn_mask`.
            TypeError: wrong dtypes.
        """
        return self.attend(
            query,
            key,
            value,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            is_causal=is_causal,
            cu_seqlens=cu_seqlens,
            seed=seed,
        )

    def reset_parameters(self) -> None:
        """Xavier-normal with gain `gamma_init`, biases zero, norms the identity."""
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            init_linear(linear, ((linear.out_features, self.gamma_init),))
        for norm in (self.q_ln, self.k_ln):
            if norm is not None:
                norm.reset_parameters()

    def extra_repr(self) -> str:
        """Sizes, options, and the kind of projection."""
        return f"{super().extra_repr()}, projections='separate'"

    def projections(self) -> str:
        """The input projections in words."""
        return "separate projections q_proj, k_proj, v_proj"
