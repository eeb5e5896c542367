"""What every attention module has: a pattern, an engine, and words about both."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..pattern import DilationPattern
from ._engine import LocalAttention, RingAttention


class AttentionModule(nn.Module):
    """Base of the attention modules; `attention` holds the options that never change.

    Args:
        attention: the call of `dilated_attention` or `ring_dilated_attention`.
    """

    def __init__(self, attention: LocalAttention) -> None:
        super().__init__()
        self.attention = attention

    @property
    def pattern(self) -> DilationPattern:
        """Branches and offsets."""
        return self.attention.pattern

    @property
    def segment_lengths(self) -> list[int]:
        """Segment length of each branch."""
        return [branch.segment_length for branch in self.pattern.branches]

    @property
    def dilation_rates(self) -> list[int]:
        """Dilation rate of each branch."""
        return [branch.dilation_rate for branch in self.pattern.branches]

    @property
    def num_groups(self) -> int:
        """Number of branches, under its historical name."""
        return len(self.pattern.branches)

    @property
    def softmax_scale(self) -> float | None:
        """Factor on the scores, None for `1 / sqrt(head_dim)`."""
        return self.attention.softmax_scale

    @property
    def dropout(self) -> float:
        """Probability of dropping an attention weight in training."""
        return self.attention.dropout

    def extra_repr(self) -> str:
        """The options that differ from the defaults."""
        engine = self.attention
        parts = [
            f"segment_lengths={self.segment_lengths}",
            f"dilation_rates={self.dilation_rates}",
            f"rule={self.pattern.rule!r}",
        ]
        if engine.output_scale != 1.0:
            parts.append(f"output_scale={engine.output_scale:.4g}")
        if engine.softmax_scale is not None:
            parts.append(f"softmax_scale={engine.softmax_scale}")
        if engine.dropout:
            parts.append(f"dropout={engine.dropout}")
        if engine.backend != "auto":
            parts.append(f"backend={engine.backend!r}")
        if engine.deterministic:
            parts.append("deterministic=True")
        if isinstance(engine, RingAttention):
            parts.append(f"layout={engine.layout!r}, mode={engine.mode!r}")
            if engine.ring_size is not None:
                parts.append(f"ring_size={engine.ring_size}")
        return ", ".join(parts)


def reject_mask(name: str, mask: Any) -> None:
    """Refuse a dense attention mask, naming what serves its purposes.

    Raises:
        ValueError: a mask was given.
    """
    if mask is not None:
        raise ValueError(
            f"{name} is not served: dilated attention never forms the n x n scores that it would "
            "mask. Use is_causal=True for causality, key_padding_mask (True = ignore) for padding, "
            "cu_seqlens for packed documents, pattern= for who sees whom"
        )


def check_same_kind(reference: torch.Tensor, **tensors: torch.Tensor) -> None:
    """Dtype and device of the inputs against a parameter; autocast lifts the dtype.

    Raises:
        TypeError: another dtype, or no floating-point tensor.
        ValueError: another device.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.device != reference.device:
            raise ValueError(
                f"{name} is on {tensor.device}, the parameters on {reference.device}; move one of "
                "them with .to(device)"
            )
        if tensor.dtype != reference.dtype and not _autocasts(tensor.device.type):
            raise TypeError(
                f"{name} has dtype {tensor.dtype}, the parameters {reference.dtype}; convert one "
                "of them or use torch.autocast"
            )


def _autocasts(device_type: str) -> bool:
    # Asking about a device type that autocast does not know, such as meta, is an error in torch.
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
