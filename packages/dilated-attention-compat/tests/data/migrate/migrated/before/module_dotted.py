import dilated_attention_pytorch.ring_dilated_attention
import dilated_attention_pytorch.ring_multihead_dilated_attention

layer = dilated_attention_pytorch.ring_multihead_dilated_attention.RingMultiheadDilatedAttention(
    embed_dim=128,
    num_heads=4,
    segment_lengths=[32],
    dilation_rates=[1],
)
core = dilated_attention_pytorch.ring_dilated_attention.RingDilatedAttention([32], [1])
