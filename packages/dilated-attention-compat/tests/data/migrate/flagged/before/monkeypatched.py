import dilated_attention_pytorch
from dilated_attention_pytorch import RingDilatedAttention

original = RingDilatedAttention.forward
RingDilatedAttention.forward = lambda self, q, k, v: original(self, q, k, v) * 2
attention = RingDilatedAttention([16], [1])
