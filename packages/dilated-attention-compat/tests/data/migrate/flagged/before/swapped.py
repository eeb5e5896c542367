from dilated_attention_pytorch import MultiheadDilatedAttention, RingMultiheadDilatedAttention

# The two classes take their lists in opposite orders.
a = MultiheadDilatedAttention(512, 8, [2048, 4096], [1, 2])
b = RingMultiheadDilatedAttention(512, 8, [1, 2], [2048, 4096])
