"""Attention layers of this project."""

from dilated_attention_pytorch import ImprovedDilatedAttention, RingDilatedAttentionV2
from dilated_attention_pytorch import RingMultiheadDilatedAttentionV2

from .pooling import MeanPool

__all__ = [
    "ImprovedDilatedAttention",
    "MeanPool",
    "RingDilatedAttentionV2",
    'RingMultiheadDilatedAttentionV2',
]
