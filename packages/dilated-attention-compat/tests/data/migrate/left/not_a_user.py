import torch
from torch import nn


class RingDilatedAttention(nn.Module):
    """Not the one of dilated-attention-pytorch."""


attention = RingDilatedAttention()
