from dilated_attention_pytorch import ImprovedDilatedAttention, ImprovedMultiheadDilatedAttention
from dilated_attention_pytorch import DilatedAttention
import torch

core = ImprovedDilatedAttention([16, 32], [1, 2], 0.1, True, device=torch.device("cuda"), dtype=torch.float16)
plain = DilatedAttention([16, 32], [1, 2], attention_dropout=0.1, use_tf32=False)
layer = ImprovedMultiheadDilatedAttention(512, 8, [1, 2], [16, 32], dropout=0.1, use_tf32=True)
untouched = ImprovedMultiheadDilatedAttention(512, 8, [1, 2], [16, 32])
