"""`ImprovedMultiheadDilatedAttention` with its old numbers; the library's own is corrected."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .._record import LegacyRecord
from .._registry import require
from ._fused_multihead import FusedMultihead
from ._improved_core import ImprovedCore


class ImprovedMultiheadDilatedAttention(FusedMultihead):
    """Projections around attention over heads, as the class of this name was until 0.2.0.

    See `FusedMultihead` for the equation and the keys of the state_dict. Initial values: Xavier
    normal for W_q and W_k, with gain `gamma_init` for W_v and W_o, zero for the biases. The
    library's class of this name attends over tokens; this one is for reproducing old results, and
    says so with one `RuntimeWarning` at the first forward.

    Args:
        embed_dim: E.
        num_heads: h, a divisor of E.
        dilation_rates: r_i, one per head group; by position they stand before the segments.
        segment_lengths: w_i, as many.
        dropout: Dropout on the weights over heads and on the attention's output, in training.
        bias: Whether the projections have a bias.
        layer_norm: Whether to normalise before the output projection.
        layer_norm_eps: Its epsilon.
        gamma_init: Gain of the initial W_v and W_o.
        device: Of the parameters; CUDA where there is any, if None.
        dtype: Of the parameters; float32 if None.
        use_tf32: No effect; kept as an attribute of `attention`.

    Raises:
        TypeError: An entry of the two lists is not an int.
        ValueError: An option is out of range, or num_heads does not divide embed_dim.
    """

    record: LegacyRecord = require("ImprovedMultiheadDilatedAttention")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dilation_rates: Sequence[int],
        segment_lengths: Sequence[int],
        dropout: float = 0.0,
        bias: bool = True,
        layer_norm: bool = True,
        layer_norm_eps: float = 1e-5,
        gamma_init: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        use_tf32: bool = True,
    ) -> None:
        """Make the parameters."""
        super().__init__(
            ImprovedCore(segment_lengths, dilation_rates, dropout, use_tf32, device, dtype),
            embed_dim,
            num_heads,
            bias,
            layer_norm,
            layer_norm_eps,
            gamma_init,
            scales_out_proj=True,
            recomputes=False,
        )
