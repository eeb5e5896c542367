from torch.nn import *
# TODO(dilated-attention-migrate): RingDilatedAttention: a star import is not followed without --star; import the name itself
from dilated_attention_pytorch import *

net = Sequential(Linear(8, 8), ReLU())
attention = RingDilatedAttention([16], [1], 0.0, True)
