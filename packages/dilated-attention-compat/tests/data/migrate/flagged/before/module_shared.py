import dilated_attention_pytorch.ring_dilated_attention as rda

pool = rda.RingAttentionMemoryPool("cpu")
attention = rda.RingDilatedAttention([16], [1])
