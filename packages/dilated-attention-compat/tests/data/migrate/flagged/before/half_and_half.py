from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention


class Probe(RingDilatedAttention):
    pass


layer = RingMultiheadDilatedAttention(64, 4, [16], [1])
core = RingDilatedAttention([16], [1])
