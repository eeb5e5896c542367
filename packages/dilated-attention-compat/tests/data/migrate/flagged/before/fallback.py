try:
    from dilated_attention_pytorch import RingDilatedAttention
    HAS_RING = True
except ImportError:
    RingDilatedAttention = None
    HAS_RING = False

if HAS_RING:
    attention = RingDilatedAttention([16], [1])
