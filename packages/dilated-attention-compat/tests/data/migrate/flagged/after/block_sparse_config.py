from dilated_attention_pytorch import (
    BlockSparseRingDilatedAttention,
    BlockSparseRingMultiheadDilatedAttention,
    SparsePatternConfig,
)

# TODO(dilated-attention-migrate): SparsePatternConfig: goes in 0.3.0; use a DilationPattern
config = SparsePatternConfig(pattern_type="dilated_sparse", sparsity_ratio=0.1, block_size=128)
# TODO(dilated-attention-migrate): BlockSparseRingDilatedAttention: sparse_config= has no counterpart
core = BlockSparseRingDilatedAttention([2048, 4096], [1, 2], sparse_config=config)
# TODO(dilated-attention-migrate): BlockSparseRingMultiheadDilatedAttention: goes in 0.3.0; use RingDilatedAttentionV2 or create_multihead_dilated_attention('ring')
# TODO(dilated-attention-migrate): SparsePatternConfig: goes in 0.3.0; use a DilationPattern
layer = BlockSparseRingMultiheadDilatedAttention(
    embed_dim=768,
    num_heads=12,
    segment_lengths=[2048, 4096],
    dilation_rates=[1, 2],
    sparse_config=SparsePatternConfig(block_size=64),
)
