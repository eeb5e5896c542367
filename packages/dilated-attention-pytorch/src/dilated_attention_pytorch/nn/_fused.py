"""One fused projection of query, key and value."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ._multihead import MultiheadModule, init_linear


class FusedProjection(MultiheadModule):
    """`qkv_proj` of shape `(E + 2 kv_dim, E)`: rows `[0:E]` are q, then k, then v.

    With `layer_norm`, `q_ln` normalises the output of the attention. `k_ln` is kept, frozen, for
    the keys of historical checkpoints and is never used. MAGNETO's gains (arXiv 2210.06423): 1 for
    q and k, `gamma_init` for v and `out_proj`.
    """

    _trains_k_ln = False

    def _add_input_projections(
        self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        rows = self.embed_dim + 2 * self.kv_dim
        self.qkv_proj = nn.Linear(self.embed_dim, rows, bias, device=device, dtype=dtype)

    @property
    def _rows(self) -> list[int]:
        return [self.embed_dim, self.kv_dim, self.kv_dim]

    def project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The projected `(b, n, E)`, `(b, n, kv_dim)`, `(b, n, kv_dim)`."""
        if key is query and value is query:
            q, k, v = self.qkv_proj(query).split(self._rows, dim=-1)
            return q, k, v
        weights = self.qkv_proj.weight.split(self._rows)
        bias = self.qkv_proj.bias
        biases = (None, None, None) if bias is None else bias.split(self._rows)
        q, k, v = map(F.linear, (query, key, value), weights, biases)
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
    ) -> tuple[torch.Tensor, None]:
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
            `(out, None)`, out of shape `(b, n, embed_dim)`; None stands for the weights.

        Raises:
            ValueError: wrong shapes or values, `need_weights=True`, or an `attn_mask`.
            TypeError: wrong dtypes.
        """
        out = self.attend(
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
        return out, None

    def reset_parameters(self) -> None:
        """Xavier-normal with MAGNETO's gains, biases zero, norms the identity."""
        q, k, v = self._rows
        init_linear(self.qkv_proj, ((q, 1.0), (k, 1.0), (v, self.gamma_init)))
        init_linear(self.out_proj, ((self.embed_dim, self.gamma_init),))
        if self.q_ln is not None and self.k_ln is not None:
            self.q_ln.reset_parameters()
            self.k_ln.reset_parameters()

    def extra_repr(self) -> str:
        """Sizes, options, and the kind of projection."""
        return f"{super().extra_repr()}, projections='fused'"

    def projections(self) -> str:
        """The input projections in words."""
        return "fused projection qkv_proj"
