"""The layer with one fused projection that two historical multihead classes shared."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .._warn import warn_at_caller
from ._checks import check_divisible_heads, check_positive, check_same
from ._head_core import HeadCore
from ._legacy_module import LegacyModule


class FusedMultihead(LegacyModule):
    """Projections around attention over the heads of one position.

    With W_q, W_k, W_v the three row blocks of `qkv_proj` and A the map of `head_attention`,

        out = W_o LayerNorm(A(W_q x, W_k x, W_v x))

    where the LayerNorm is `q_ln`. `k_ln` exists, is saved and is never used. Keys of the
    state_dict: `qkv_proj.weight` (3E, E), `qkv_proj.bias` (3E), `out_proj.weight` (E, E),
    `out_proj.bias` (E), and with `layer_norm` `q_ln` and `k_ln` `.weight` and `.bias` (E).

    Args:
        attention: The core between the projections; its device and dtype are the parameters'.
        embed_dim: E.
        num_heads: h, a divisor of E.
        bias: Whether the projections have a bias.
        layer_norm: Whether to normalise before the output projection.
        layer_norm_eps: Its epsilon.
        gamma_init: Gain of the initial W_v.
        scales_out_proj: Whether W_o starts Xavier normal with that gain and its bias at zero;
            PyTorch's default otherwise.
        recomputes: Whether the attention is recomputed in backward, in training.

    Raises:
        ValueError: An option is out of range, or num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        attention: HeadCore,
        embed_dim: int,
        num_heads: int,
        bias: bool,
        layer_norm: bool,
        layer_norm_eps: float,
        gamma_init: float,
        *,
        scales_out_proj: bool,
        recomputes: bool,
    ) -> None:
        """Make the parameters in the historical order, so that seeds carry over."""
        super().__init__()
        check_divisible_heads(embed_dim, num_heads)
        check_positive("layer_norm_eps", layer_norm_eps)
        check_positive("gamma_init", gamma_init)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.bias = bias
        self.gamma_init = gamma_init
        self.use_checkpointing = recomputes
        self.attention = attention
        self.device = attention.device
        self.dtype = attention.dtype
        self.qkv_proj = nn.Linear(
            embed_dim, 3 * embed_dim, bias=bias, device=self.device, dtype=self.dtype
        )
        self.out_proj = nn.Linear(
            embed_dim, embed_dim, bias=bias, device=self.device, dtype=self.dtype
        )
        self.q_ln = self._norm(layer_norm_eps) if layer_norm else None
        self.k_ln = self._norm(layer_norm_eps) if layer_norm else None
        for weight, gain in zip(self.qkv_proj.weight.chunk(3), (1.0, 1.0, gamma_init), strict=True):
            nn.init.xavier_normal_(weight, gain=gain)
        if scales_out_proj:
            nn.init.xavier_normal_(self.out_proj.weight, gain=gamma_init)
        if bias:
            nn.init.zeros_(self.qkv_proj.bias)
            if scales_out_proj:
                nn.init.zeros_(self.out_proj.bias)

    def _norm(self, eps: float) -> nn.LayerNorm:
        return nn.LayerNorm(self.embed_dim, eps=eps, device=self.device, dtype=self.dtype)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        average_attn_weights: bool = True,
    ) -> tuple[Tensor, None]:
        """Project, attend over the heads at each position, normalise, project.

        Args:
            query: (b, n, E).
            key: (b, n, E); query where None.
            value: (b, n, E); query where None.
            key_padding_mask: Ignored, as it always was; a `UserWarning` says so.
            need_weights: There are none to return; a `UserWarning` says so.
            attn_mask: Ignored, as it always was; a `UserWarning` says so.
            is_causal: Mask later heads.
            average_attn_weights: No effect, there being no weights.

        Returns:
            (out, None) with out (b, n, E).

        Raises:
            ValueError: Shapes or devices differ, the last axis is not E, a segment length does
                not divide n, or there are fewer heads than segment lengths.
            TypeError: Dtypes differ.
        """
        name = self.record.identifier
        if key_padding_mask is not None or attn_mask is not None:
            warn_at_caller(f"{name} ignores key_padding_mask and attn_mask.", UserWarning)
        if need_weights:
            warn_at_caller(f"{name} has no weights to return: they are None.", UserWarning)
        key = query if key is None else key
        value = query if value is None else value
        check_same(query, key, value, 3, "(batch, seq, embed_dim)")
        if query.shape[2] != self.embed_dim:
            raise ValueError(
                f"the last axis of query must be embed_dim ({self.embed_dim}), got "
                f"{query.shape[2]}; project it first"
            )
        attended = self._attend(*self._project(query, key, value), is_causal).flatten(2)
        if self.q_ln is not None:
            attended = self.q_ln(attended)
        out = self.out_proj(attended)
        self.announce_wrong_numbers()
        return out, None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v as (b, n, h, d), by one product where the three inputs are one."""
        if key is query and value is query:
            projected = self.qkv_proj(query).chunk(3, dim=2)
        else:
            projected = tuple(
                self.qkv_proj(x).chunk(3, dim=2)[i] for i, x in enumerate((query, key, value))
            )
        q, k, v = (x.reshape(*x.shape[:2], self.num_heads, self.head_dim) for x in projected)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        if self.use_checkpointing and self.training:
            out: Tensor = checkpoint(self.attention, q, k, v, is_causal, use_reentrant=False)
        else:
            out = self.attention(q, k, v, is_causal)
        return out

    def clear_cache(self) -> None:
        """Do nothing: there are no caches any more."""

    def get_memory_info(self) -> dict[str, object]:
        """Return what holds of the attention's memory."""
        return self.attention.get_memory_info()

    def extra_repr(self) -> str:
        """Show the widths."""
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, bias={self.bias}, "
            f"layer_norm={self.q_ln is not None}"
        )
