import torch
from dilated_attention_pytorch import DilationPattern, RingDilatedAttentionV2, dilated_attention
from dilated_attention_pytorch import create_multihead_dilated_attention, ring_dilated_attention

pattern = DilationPattern.longnet([16, 32], [1, 2])
q = torch.randn(1, 64, 4, 8)
out = dilated_attention(q, q, q, pattern)
out = ring_dilated_attention(q, q, q, pattern, ring_size=2)
core = RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1], rule="head_groups")
layer = create_multihead_dilated_attention("ring", embed_dim=64, num_heads=4)
