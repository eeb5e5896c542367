from dilated_attention_pytorch import DilatedAttention, RingDilatedAttentionV2, \
    RingMultiheadDilatedAttentionV2
import dilated_attention_pytorch

def both(a, b):  # pylint: disable=unused-argument
    """Old habits: `RingDilatedAttention` in a docstring stays."""
    x = RingDilatedAttentionV2(segment_lengths=a, dilation_rates=b,
                             dropout=0.1,
                             ring_size=2)
    return x, dilated_attention_pytorch.ImprovedDilatedAttention(a, b)
