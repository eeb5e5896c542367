"""The deprecated `RingMultiheadDilatedAttention`, with the numbers it had."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import deprecated

from .._record import LegacyRecord
from .._registry import require
from .._warn import warn_deprecated
from ._fused_multihead import FusedMultihead
from ._ring_core import RingCore


@deprecated(
    "RingMultiheadDilatedAttention is deprecated due to incorrect implementation. This version "
    "divides queries across devices, preventing proper memory savings. Please use "
    "RingDilatedAttentionV2 or create_multihead_dilated_attention('ring') instead. This "
    "implementation will be removed in v0.3.0.",
    category=None,
)
class RingMultiheadDilatedAttention(FusedMultihead):
    """Deprecated: projections around attention over the heads of one position.

    See `FusedMultihead` for the equation and the keys of the state_dict. Initial values: Xavier
    normal for W_q and W_k, with gain `gamma_init` for W_v, zero for `qkv_proj.bias`, and PyTorch's
    default for `out_proj`.

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

    record: LegacyRecord = require("RingMultiheadDilatedAttention")

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
        """Warn, then make the parameters."""
        warn_deprecated(self.record)
        core = RingCore(
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
        super().__init__(
            core,
            embed_dim,
            num_heads,
            bias,
            layer_norm,
            layer_norm_eps,
            gamma_init,
            scales_out_proj=False,
            recomputes=use_checkpointing,
        )
        self.ring_size = core.ring_size
        self.use_flash_attention = use_flash_attention
        self.compile_model = compile_model

    def extra_repr(self) -> str:
        """Show the widths and the ring size given, which has no effect."""
        return f"{super().extra_repr()}, ring_size={self.ring_size}"
