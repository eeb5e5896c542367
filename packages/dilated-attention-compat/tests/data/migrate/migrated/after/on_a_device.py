import torch
from dilated_attention_pytorch import RingDilatedAttentionV2, create_multihead_dilated_attention

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
core = RingDilatedAttentionV2(segment_lengths=[16, 32], dilation_rates=[1, 2]).to(device).eval()
layer = create_multihead_dilated_attention("ring", embed_dim=64, num_heads=4, segment_lengths=[16, 32], dilation_rates=[1, 2], device=device).half()


def benchmark(x):
    return core(x, x, x), layer(x.flatten(2))[0]
