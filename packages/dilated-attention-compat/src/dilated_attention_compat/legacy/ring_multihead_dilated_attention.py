"""The deprecated `RingMultiheadDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import deprecated

from .._registry import require
from .._warn import warn_at_caller, warn_deprecated, warn_wrong_numbers
from ._checks import check_positive, check_same
from ._ring_core import RingCore

_RECORD = require("RingMultiheadDilatedAttention")


@deprecated(
    "RingMultiheadDilatedAttention is deprecated due to incorrect implementation. This version "
    "divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class RingMultiheadDilatedAttention(nn.Module):
    """Deprecated: projections around attention over the heads of one position.

    With W_q, W_k, W_v the three row blocks of `qkv_proj` and A the map of `head_attention`,

        out = W_o LayerNorm(A(W_q x, W_k x, W_v x))

    where the LayerNorm is `q_ln`. `k_ln` exists, is saved and is never used. Keys of the
    state_dict: `qkv_proj.weight` (3E, E), `qkv_proj.bias` (3E), `out_proj.weight` (E, E),
    `out_proj.bias` (E), and with `layer_norm` `q_ln` and `k_ln` `.weight` and `.bias` (E).
    Initial values: Xavier normal for W_q and W_k, with gain `gamma_init` for W_v, zero for
    `qkv_proj.bias`, and PyTorch's default for `out_proj`.

    Construction gives one `RingAttentionDeprecationWarning`, and the first forward one
    `RuntimeWarning`, both at the caller's line. The result is always the pair `(out, None)`.

    Options without effect, accepted and kept as attributes: `use_tf32` (it used to switch TF32
    on for the whole process), `block_size`, `ring_size`, `use_flash_attention` and
    `compile_model` (compile the module yourself where you want it). Accidents of the historical
    class that are not reproduced: it failed at the second training step, could be neither copied
    nor pickled, and `clear_cache` and `get_memory_info` raised.

    Args:
        embed_dim: E.
        num_heads: h, a divisor of E.
        segment_lengths: w_i, one per head group. The historical `MultiheadDilatedAttention`
            took the rates first; this class never did.
        dilation_rates: r_i, as many.
        dropout: Dropout on the weights over heads, in training.
        bias: Whether the projections have a bias.
        layer_norm: Whether to normalise before the output projection.
        layer_norm_eps: Its epsilon.
        gamma_init: Gain of the initial W_v.
        block_size: No effect.
        ring_size: No effect; the world size where None.
        use_checkpointing: Recompute the attention in backward, in training.
        use_tf32: No effect.
        use_flash_attention: No effect.
        compile_model: No effect.
        device: Of the parameters; CUDA where there is any, if None.
        dtype: Of the parameters; float32 if None.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range, or num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        bias: bool = True,
        layer_norm: bool = True,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        block_size: int = 1024,
        ring_size: int | None = None,
        use_checkpointing: bool = True,
        use_tf32: bool = True,
        use_flash_attention: bool = True,
        compile_model: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Warn, then make the parameters in the historical order, so that seeds carry over."""
        warn_deprecated(_RECORD)
        super().__init__()
        check_positive("embed_dim", embed_dim)
        check_positive("num_heads", num_heads)
        check_positive("layer_norm_eps", layer_norm_eps)
        check_positive("gamma_init", gamma_init)
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads}); "
                "change one of the two"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.bias = bias
        self.use_checkpointing = use_checkpointing
        self.use_flash_attention = use_flash_attention
        self.compile_model = compile_model
        self.attention = RingCore(
            segment_lengths,
            dilation_rates,
            dropout,
            use_tf32,
            block_size,
            ring_size,
            use_checkpointing,
            device,
            dtype,
        )
        self.device = self.attention.device
        self.dtype = self.attention.dtype
        self.qkv_proj = nn.Linear(
            embed_dim, 3 * embed_dim, bias=bias, device=self.device, dtype=self.dtype
        )
        self.out_proj = nn.Linear(
            embed_dim, embed_dim, bias=bias, device=self.device, dtype=self.dtype
        )
        self.q_ln: nn.LayerNorm | None = None
        self.k_ln: nn.LayerNorm | None = None
        if layer_norm:
            self.q_ln = nn.LayerNorm(
                embed_dim, eps=layer_norm_eps, device=self.device, dtype=self.dtype
            )
            self.k_ln = nn.LayerNorm(
                embed_dim, eps=layer_norm_eps, device=self.device, dtype=self.dtype
            )
        self._reset_qkv(gamma_init)
        self._numbers_announced = False

    def _reset_qkv(self, gamma: float) -> None:
        for weight, gain in zip(self.qkv_proj.weight.chunk(3), (1.0, 1.0, gamma), strict=True):
            nn.init.xavier_normal_(weight, gain=gain)
        if self.bias:
            nn.init.zeros_(self.qkv_proj.bias)

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
        if key_padding_mask is not None or attn_mask is not None:
            warn_at_caller(
                "RingMultiheadDilatedAttention ignores key_padding_mask and attn_mask.",
                UserWarning,
            )
        if need_weights:
            warn_at_caller(
                "RingMultiheadDilatedAttention has no weights to return: they are None.",
                UserWarning,
            )
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
        if not self._numbers_announced:
            self._numbers_announced = True
            warn_wrong_numbers(_RECORD)
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
        """Show the widths and the ring size given, which has no effect."""
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, bias={self.bias}, "
            f"layer_norm={self.q_ln is not None}, ring_size={self.attention.ring_size}"
        )
