from dilated_attention_pytorch import RingDilatedAttention, create_multihead_dilated_attention


# TODO(dilated-attention-migrate): RingDilatedAttention: a subclass; base it on RingDilatedAttentionV2, whose internals and arguments are others
class Probe(RingDilatedAttention):
    pass


layer = create_multihead_dilated_attention("ring", embed_dim=64, num_heads=4, segment_lengths=[16], dilation_rates=[1])
core = RingDilatedAttention([16], [1])
