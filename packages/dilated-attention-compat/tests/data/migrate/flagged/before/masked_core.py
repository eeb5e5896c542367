import torch
from torch import nn
from dilated_attention_pytorch import RingDilatedAttention


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = RingDilatedAttention([16, 32], [1, 2])

    def forward(self, q, k, v, mask):
        if mask is not None:
            return self.attention(q, k, v, False, mask)
        return self.attention(q, k, v, is_causal=True, attention_mask=None)
