from dilated_attention_pytorch import RingDilatedAttention
pattern = ([16, 32], [1, 2])
if True:
    attention = RingDilatedAttention(*pattern, dropout=0.1)
