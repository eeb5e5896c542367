import torch
from dilated_attention_pytorch import DilatedAttention, MultiheadDilatedAttention

core = DilatedAttention([16, 32], [1, 2], None, 0.1)
layer = MultiheadDilatedAttention(512, 8, [1, 2], [2048, 4096], layer_norm=False)
x = torch.randn(1, 4096, 512)
out = layer(x, x, x, is_causal=True)
