from dilated_attention_pytorch import DilatedAttention, RingDilatedAttention, \
    RingMultiheadDilatedAttention
import dilated_attention_pytorch

def both(a, b):  # pylint: disable=unused-argument
    """Old habits: `RingDilatedAttention` in a docstring stays."""
    x = RingDilatedAttention(a, b,
                             0.1,
                             use_tf32=True,
                             ring_size=2)
    return x, dilated_attention_pytorch.ImprovedDilatedAttention(a, b, use_tf32=True)
