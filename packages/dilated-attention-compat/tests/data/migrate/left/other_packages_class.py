import dilated_attention_pytorch
from mylib.ring import RingDilatedAttention
from .layers import RingMultiheadDilatedAttention

print(dilated_attention_pytorch.__version__)
a = RingDilatedAttention([16], [1], 0.0, True)
b = RingMultiheadDilatedAttention(512, 8, [16], [1])
