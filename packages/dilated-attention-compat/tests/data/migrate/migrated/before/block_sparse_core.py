from dilated_attention_pytorch import BlockSparseRingDilatedAttention

sparse = BlockSparseRingDilatedAttention(
    segment_lengths=[2048, 4096],
    dilation_rates=[1, 2],
    enable_memory_pool=True,
    enable_packed_comm=True,
    dropout=0.0,
    ring_size=1,
)
