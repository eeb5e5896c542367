from dilated_attention_pytorch import MultiheadDilatedAttention, RingMultiheadDilatedAttention
from torch import nn


class WithBias(nn.Module):
    pass


# TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: a subclass; base it on RingMultiheadDilatedAttentionV2, whose internals and arguments are others
@nn.Module.register_forward_hook if False else (lambda cls: cls)
class MyRing(RingMultiheadDilatedAttention, WithBias):
    def _setup(self): ...


# TODO(dilated-attention-migrate): MultiheadDilatedAttention: a subclass; the class stays, but its internals and arguments are others
class MyPlain(MultiheadDilatedAttention):
    def forward(self, x):
        return super().forward(x, x, x)
