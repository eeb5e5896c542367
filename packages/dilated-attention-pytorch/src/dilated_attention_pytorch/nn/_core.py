"""The modules that take query, key and value of shape (b, n, h, d)."""

from __future__ import annotations

import torch

from ._base import AttentionModule, reject_mask


class CoreModule(AttentionModule):
    """Attention without projections; no parameters, an empty state_dict."""

    def explain(
        self,
        n: int,
        *,
        num_heads: int,
        head_dim: int,
        num_kv_heads: int | None = None,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        is_causal: bool = False,
    ) -> str:
        """How a call would run: function, backend, exchange, FLOPs, bytes and memory, and why.

        Args:
            n: global sequence length.
            num_heads: query heads H.
            head_dim: d.
            num_kv_heads: key/value heads, H where None.
            batch_size: b.
            dtype: of query, key and value.
            device: where they live.
            is_causal: as in the call.

        Raises:
            ValueError: values that the call would refuse.
            TypeError: kinds that the call would refuse.
        """
        plan = self.attention.explain(
            n,
            num_heads=num_heads,
            head_dim=head_dim,
            num_kv_heads=num_kv_heads,
            batch_size=batch_size,
            dtype=dtype,
            device=device,
            is_causal=is_causal,
        )
        return f"module     {type(self).__name__}, no projections\n{plan}"


class CommonCore(CoreModule):
    """A core with the forward that all but one of them have."""

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        is_causal: bool = False,
        attention_mask: torch.Tensor | None = None,
        *,
        key_padding_mask: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        seed: int | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend over `(b, n, h, d)` tensors (SDPA's are `(b, h, n, d)`: `.transpose(1, 2)`).

        Args:
            query: `(b, n, h, d)`.
            key: `(b, n, g, d)`, where g divides h.
            value: `(b, n, g, d)`.
            is_causal: a token sees itself and earlier tokens only.
            attention_mask: not served; anything but None raises.
            key_padding_mask: `(b, n)` bool, True = ignore the key, as in `nn.MultiheadAttention`.
            cu_seqlens: `(docs + 1,)` int32 boundaries of packed documents, b = 1.
            seed: of the dropout mask; None draws one.

        Returns:
            `(b, n, h, d)`, zero where a token sees no key.

        Raises:
            ValueError: wrong shapes or values, or an `attention_mask`.
            TypeError: wrong dtypes.
        """
        reject_mask("attention_mask", attention_mask)
        return self.attention(
            query,
            key,
            value,
            is_causal=is_causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
            training=self.training,
            seed=seed,
        )
