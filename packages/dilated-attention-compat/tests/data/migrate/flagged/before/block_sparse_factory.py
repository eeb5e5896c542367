import dilated_attention_pytorch as dap

sparse = dap.create_block_sparse_attention(sparsity_ratio=0.95, embed_dim=512, num_heads=8)
adaptive = dap.create_adaptive_sparse_attention(embed_dim=512, num_heads=8)
ring = dap.create_multihead_dilated_attention("block_sparse_ring", embed_dim=512, num_heads=8)
core = dap.create_dilated_attention("ring", [16], [1], sparsity_ratio=0.5)
