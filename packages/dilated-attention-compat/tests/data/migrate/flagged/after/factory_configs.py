from dilated_attention_pytorch import create_multihead_dilated_attention
from dilated_attention_pytorch.core import MultiheadConfig, RingAttentionConfig

# TODO(dilated-attention-migrate): MultiheadConfig: goes in 0.3.0; use keyword arguments
multihead = MultiheadConfig(embed_dim=512, num_heads=8)
# TODO(dilated-attention-migrate): RingAttentionConfig: goes in 0.3.0; use keyword arguments
ring = RingAttentionConfig(segment_lengths=[16, 32], dilation_rates=[1, 2], ring_size=2)
# TODO(dilated-attention-migrate): create_multihead_dilated_attention: multihead_config= has no counterpart
attention = create_multihead_dilated_attention(
    "ring", multihead_config=multihead, attention_config=ring
)
