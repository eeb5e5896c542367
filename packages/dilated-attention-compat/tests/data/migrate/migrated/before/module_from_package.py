from dilated_attention_pytorch import ring_dilated_attention as ring, DilatedAttention

old = ring.RingDilatedAttention([16], [1])
new = DilatedAttention([16], [1])
