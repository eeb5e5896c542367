import torch
from dilated_attention_pytorch import RingDilatedAttention
from dilated_attention_pytorch.ring_dilated_attention_v2 import RingDilatedAttentionV2

attention = RingDilatedAttention([16], [1], ring_size=4)
info = attention.get_memory_info()
print(info["memory_complexity"])
attention.clear_cache(force=True)
v2 = RingDilatedAttentionV2([16], [1], ring_size=4)
print(v2.get_memory_estimate(1_000_000))
