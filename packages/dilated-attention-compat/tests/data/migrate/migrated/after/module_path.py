"""Imports by the paths that the old documentation showed."""
from dilated_attention_pytorch import RingDilatedAttentionV2
from dilated_attention_pytorch import create_multihead_dilated_attention

a = RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])
b = create_multihead_dilated_attention("ring", embed_dim=64, num_heads=4, segment_lengths=[16], dilation_rates=[1])
c = RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])
