try:
    # TODO(dilated-attention-migrate): RingDilatedAttention: RingDilatedAttention is bound in more than one way in this file
    from dilated_attention_pytorch import RingDilatedAttention
    HAS_RING = True
except ImportError:
    RingDilatedAttention = None
    HAS_RING = False

if HAS_RING:
    attention = RingDilatedAttention([16], [1])
