from dilated_attention_pytorch import MultiheadDilatedAttention, RingMultiheadDilatedAttention
from torch import nn


class WithBias(nn.Module):
    pass


@nn.Module.register_forward_hook if False else (lambda cls: cls)
class MyRing(RingMultiheadDilatedAttention, WithBias):
    def _setup(self): ...


class MyPlain(MultiheadDilatedAttention):
    def forward(self, x):
        return super().forward(x, x, x)
