import torch
from dilated_attention_pytorch import create_multihead_dilated_attention

layer = create_multihead_dilated_attention(
    "ring",
    embed_dim = 512,
    num_heads = 8,
    segment_lengths = [2048, 4096],
    dilation_rates = [1, 2]
)
layer.load_state_dict(torch.load("layer.pt", map_location="cpu"))
layer.eval()
with torch.no_grad():
    out, _ = layer(torch.randn(1, 4096, 512))
