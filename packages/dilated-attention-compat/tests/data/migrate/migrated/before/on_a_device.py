import torch
from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
core = RingDilatedAttention([16, 32], [1, 2]).to(device).eval()
layer = RingMultiheadDilatedAttention(64, 4, [16, 32], [1, 2], device=device).half()


def benchmark(x):
    return core(x, x, x), layer(x.flatten(2))[0]
