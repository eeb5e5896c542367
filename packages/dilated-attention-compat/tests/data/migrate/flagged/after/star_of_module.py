# TODO(dilated-attention-migrate): RingDilatedAttention: a star import is not followed without --star; import the name itself
from dilated_attention_pytorch.ring_dilated_attention import *
import torch
