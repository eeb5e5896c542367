import torch
from dilated_attention_pytorch import LongNet, DilatedTransformerEncoderLayer
from dilated_attention_pytorch.long_net import LongNetLM

lm = LongNetLM(num_tokens=256, d_model=512, nhead=8, segment_lengths=[64, 128], dilation_rates=[1, 2])
layer = DilatedTransformerEncoderLayer(512, 8, [64, 128], [1, 2])
print(isinstance(lm, LongNet))
