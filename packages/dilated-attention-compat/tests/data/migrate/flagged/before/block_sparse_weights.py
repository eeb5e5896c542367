import torch
from dilated_attention_pytorch import BlockSparseRingDilatedAttention

attention = BlockSparseRingDilatedAttention([128], [1])
q = torch.randn(1, 128, 4, 16)
out, weights = attention(q, q, q, return_attention_weights=True)
print(weights["block_indices"][:4])
