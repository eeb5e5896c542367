import dilated_attention_pytorch as dap
import torch

model = dap.create_multihead_dilated_attention("ring", embed_dim=256, num_heads=8, segment_lengths=[64, 128], dilation_rates=[1, 2])
core = dap.RingDilatedAttentionV2(segment_lengths=[64], dilation_rates=[1], ring_size=None)
print(type(core) is dap.RingDilatedAttentionV2, isinstance(model, dap.RingMultiheadDilatedAttentionV2))
print(dap.__version__)
x = torch.randn(1, 128, 256)
y, _ = model(x, x, x)
