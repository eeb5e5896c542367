# TODO(dilated-attention-migrate): RingDilatedAttention: shares the import of rda with a name that is not rewritten
import dilated_attention_pytorch.ring_dilated_attention as rda

# TODO(dilated-attention-migrate): RingAttentionMemoryPool: gone; use PyTorch's own allocator
pool = rda.RingAttentionMemoryPool("cpu")
attention = rda.RingDilatedAttention([16], [1])
