import dilated_attention_pytorch
from dilated_attention_pytorch import RingDilatedAttention

# TODO(dilated-attention-migrate): RingDilatedAttention: used otherwise than by a call; RingDilatedAttentionV2 replaces it
original = RingDilatedAttention.forward
# TODO(dilated-attention-migrate): RingDilatedAttention: used otherwise than by a call; RingDilatedAttentionV2 replaces it
RingDilatedAttention.forward = lambda self, q, k, v: original(self, q, k, v) * 2
attention = RingDilatedAttention([16], [1])
