import functools
from dilated_attention_pytorch import RingDilatedAttention

# TODO(dilated-attention-migrate): RingDilatedAttention: used otherwise than by a call; RingDilatedAttentionV2 replaces it
make = functools.partial(RingDilatedAttention, [16, 32], [1, 2])
layers = [make(dropout=p) for p in (0.0, 0.1)]
