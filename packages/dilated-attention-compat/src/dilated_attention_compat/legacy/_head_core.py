"""Attention over heads as a module, with what its historical classes had in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_divides, check_pattern, check_probability, check_same
from ._head_attention import head_attention


def device_or_default(device: torch.device | str | None) -> torch.device:
    """Return the device named, or the historical default: CUDA where there is any."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class HeadCore(nn.Module):
    """Options and numbers of the historical cores; it warns of nothing itself.

    Kept apart from the public classes so that the layers that hold a core warn once and not
    twice. It has no parameters: its state_dict is empty.

    Attributes:
        drops_output: Whether dropout falls on the output again, after the weights.
    """

    drops_output: ClassVar[bool] = False

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        dropout: float = 0.0,
        use_tf32: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Record the options.

        Raises:
            TypeError: An entry of the two lists is not an int.
            ValueError: An option is out of range.
        """
        super().__init__()
        check_pattern(segment_lengths, dilation_rates)
        check_probability(dropout)
        self.segment_lengths = list(segment_lengths)
        self.dilation_rates = list(dilation_rates)
        self.num_groups = len(self.segment_lengths)
        self.dropout = dropout
        self.use_tf32 = use_tf32
        self.device = device_or_default(device)
        self.dtype = dtype if dtype is not None else torch.float32

    def forward(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
        """Attend over the heads at each position; see `head_attention`.

        Args:
            query: (b, n, h, d).
            key: The same shape.
            value: The same shape.
            is_causal: Mask later heads.

        Returns:
            (b, n, h, d).

        Raises:
            ValueError: Shapes or devices differ, a segment length does not divide n, or there
                are fewer heads than segment lengths.
            TypeError: Dtypes differ.
        """
        self.check_inputs(query, key, value)
        out = head_attention(
            query,
            key,
            value,
            self.segment_lengths,
            self.dilation_rates,
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return F.dropout(out, self.dropout, self.training and self.drops_output)

    def check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Refuse what `forward` refuses."""
        check_same(query, key, value, 4, "(batch, seq, heads, head_dim)")
        check_divides(query.shape[1], query.shape[2], self.segment_lengths)

    def clear_cache(self, force: bool = False) -> None:
        """Do nothing: there are no caches any more, `force` or not."""

    def get_memory_info(self) -> dict[str, object]:
        """Return what holds of its memory; the claims about device counts are left out."""
        return {"memory_complexity": "O(n)"}

    def extra_repr(self) -> str:
        """Show the pattern and the dropout."""
        return (
            f"segment_lengths={self.segment_lengths}, dilation_rates={self.dilation_rates}, "
            f"dropout={self.dropout}"
        )
