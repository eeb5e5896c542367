"""Imports by the paths that the old documentation showed."""
from dilated_attention_pytorch.ring_dilated_attention import RingDilatedAttention
from dilated_attention_pytorch.ring_multihead_dilated_attention import RingMultiheadDilatedAttention
from dilated_attention_pytorch.ring_dilated_attention_unfold_optimized import (
    OptimizedUnfoldRingDilatedAttention,
)

a = RingDilatedAttention(segment_lengths=[16], dilation_rates=[1])
b = RingMultiheadDilatedAttention(64, 4, segment_lengths=[16], dilation_rates=[1])
c = OptimizedUnfoldRingDilatedAttention([16], [1], device="cpu")
