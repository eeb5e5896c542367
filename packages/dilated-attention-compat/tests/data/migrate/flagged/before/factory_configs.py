from dilated_attention_pytorch import create_multihead_dilated_attention
from dilated_attention_pytorch.core import MultiheadConfig, RingAttentionConfig

multihead = MultiheadConfig(embed_dim=512, num_heads=8)
ring = RingAttentionConfig(segment_lengths=[16, 32], dilation_rates=[1, 2], ring_size=2)
attention = create_multihead_dilated_attention(
    "ring", multihead_config=multihead, attention_config=ring
)
