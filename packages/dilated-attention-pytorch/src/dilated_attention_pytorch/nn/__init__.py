"""Modules over `dilated_attention` and `ring_dilated_attention`."""

from __future__ import annotations

from ._dilated_attention import DilatedAttention as DilatedAttention
from ._distributed_multihead_dilated_attention import (
    DistributedMultiheadDilatedAttention as DistributedMultiheadDilatedAttention,
)
from ._improved_dilated_attention import ImprovedDilatedAttention as ImprovedDilatedAttention
from ._improved_multihead_dilated_attention import (
    ImprovedMultiheadDilatedAttention as ImprovedMultiheadDilatedAttention,
)
from ._multihead_dilated_attention import MultiheadDilatedAttention as MultiheadDilatedAttention
from ._ring_attention_correct_v2 import RingAttentionCorrectV2 as RingAttentionCorrectV2
from ._ring_dilated_attention_v2 import RingDilatedAttentionV2 as RingDilatedAttentionV2
from ._ring_multihead_dilated_attention_v2 import (
    RingMultiheadDilatedAttentionV2 as RingMultiheadDilatedAttentionV2,
)
from ._true_ring_dilated_attention import TrueRingDilatedAttention as TrueRingDilatedAttention
