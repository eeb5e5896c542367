import dilated_attention_pytorch as dap

# TODO(dilated-attention-migrate): create_block_sparse_attention: goes in 0.3.0; use create_multihead_dilated_attention
sparse = dap.create_block_sparse_attention(sparsity_ratio=0.95, embed_dim=512, num_heads=8)
# TODO(dilated-attention-migrate): create_adaptive_sparse_attention: goes in 0.3.0; use create_multihead_dilated_attention
adaptive = dap.create_adaptive_sparse_attention(embed_dim=512, num_heads=8)
# TODO(dilated-attention-migrate): create_multihead_dilated_attention('block_sparse_ring'): gone; use create_multihead_dilated_attention('ring'), or create_block_sparse_attention with its old numbers until 0.3.0
ring = dap.create_multihead_dilated_attention("block_sparse_ring", embed_dim=512, num_heads=8)
# TODO(dilated-attention-migrate): create_dilated_attention: sparsity_ratio= has no counterpart
core = dap.create_dilated_attention("ring", [16], [1], sparsity_ratio=0.5)
