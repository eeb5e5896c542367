from dilated_attention_pytorch import RingDilatedAttention
pattern = ([16, 32], [1, 2])
if True:
    # TODO(dilated-attention-migrate): RingDilatedAttention: * or ** hides which arguments are passed
    attention = RingDilatedAttention(*pattern, dropout=0.1)
