from dilated_attention_pytorch import (
    BlockSparseRingDilatedAttention,
    BlockSparseRingMultiheadDilatedAttention,
    SparsePatternConfig,
)

config = SparsePatternConfig(pattern_type="dilated_sparse", sparsity_ratio=0.1, block_size=128)
core = BlockSparseRingDilatedAttention([2048, 4096], [1, 2], sparse_config=config)
layer = BlockSparseRingMultiheadDilatedAttention(
    embed_dim=768,
    num_heads=12,
    segment_lengths=[2048, 4096],
    dilation_rates=[1, 2],
    sparse_config=SparsePatternConfig(block_size=64),
)
