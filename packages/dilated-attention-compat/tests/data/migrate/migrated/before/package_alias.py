import dilated_attention_pytorch as dap
import torch

model = dap.RingMultiheadDilatedAttention(embed_dim=256, num_heads=8, segment_lengths=[64, 128], dilation_rates=[1, 2])
core = dap.RingDilatedAttention([64], [1], ring_size=None)
print(type(core) is dap.RingDilatedAttention, isinstance(model, dap.RingMultiheadDilatedAttention))
print(dap.__version__)
x = torch.randn(1, 128, 256)
y, _ = model(x, x, x)
