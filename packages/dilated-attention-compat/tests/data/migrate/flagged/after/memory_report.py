import torch
from dilated_attention_pytorch import RingDilatedAttention
from dilated_attention_pytorch import RingDilatedAttentionV2

attention = RingDilatedAttention([16], [1], ring_size=4)
# TODO(dilated-attention-migrate): RingDilatedAttention: its get_memory_info is gone
info = attention.get_memory_info()
print(info["memory_complexity"])
# TODO(dilated-attention-migrate): RingDilatedAttention: its clear_cache is gone
attention.clear_cache(force=True)
v2 = RingDilatedAttentionV2([16], [1], ring_size=4)
# TODO(dilated-attention-migrate): RingDilatedAttentionV2: its get_memory_estimate is gone
print(v2.get_memory_estimate(1_000_000))
