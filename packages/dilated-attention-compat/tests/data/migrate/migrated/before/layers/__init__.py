"""Attention layers of this project."""

from dilated_attention_pytorch import ImprovedDilatedAttention, RingDilatedAttention
from dilated_attention_pytorch import RingMultiheadDilatedAttention

from .pooling import MeanPool

__all__ = [
    "ImprovedDilatedAttention",
    "MeanPool",
    "RingDilatedAttention",
    'RingMultiheadDilatedAttention',
]
