# TODO(dilated-attention-migrate): RingDilatedAttention: exported from here under a name that others import; rename it there too
from dilated_attention_pytorch import RingDilatedAttention
# TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: exported from here under a name that others import; rename it there too
from dilated_attention_pytorch import RingMultiheadDilatedAttention as RingMultiheadDilatedAttention
from .trainer import Trainer
