from dilated_attention_pytorch import MultiheadDilatedAttention, RingMultiheadDilatedAttention

# The two classes take their lists in opposite orders.
# TODO(dilated-attention-migrate): MultiheadDilatedAttention: segment_lengths and dilation_rates look swapped
a = MultiheadDilatedAttention(512, 8, [2048, 4096], [1, 2])
# TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: segment_lengths and dilation_rates look swapped
b = RingMultiheadDilatedAttention(512, 8, [1, 2], [2048, 4096])
