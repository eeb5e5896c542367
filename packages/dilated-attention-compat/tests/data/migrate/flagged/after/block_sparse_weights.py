import torch
from dilated_attention_pytorch import BlockSparseRingDilatedAttention

attention = BlockSparseRingDilatedAttention([128], [1])
q = torch.randn(1, 128, 4, 16)
# TODO(dilated-attention-migrate): BlockSparseRingDilatedAttention: forward takes no return_attention_weights any more
out, weights = attention(q, q, q, return_attention_weights=True)
print(weights["block_indices"][:4])
