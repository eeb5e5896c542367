from torch.nn import *
from dilated_attention_pytorch import *

net = Sequential(Linear(8, 8), ReLU())
attention = RingDilatedAttention([16], [1], 0.0, True)
