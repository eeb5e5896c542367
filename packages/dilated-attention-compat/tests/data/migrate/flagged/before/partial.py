import functools
from dilated_attention_pytorch import RingDilatedAttention

make = functools.partial(RingDilatedAttention, [16, 32], [1, 2])
layers = [make(dropout=p) for p in (0.0, 0.1)]
