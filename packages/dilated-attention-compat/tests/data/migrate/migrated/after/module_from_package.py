import dilated_attention_pytorch as ring
from dilated_attention_pytorch import DilatedAttention

old = ring.RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])
new = DilatedAttention([16], [1])
