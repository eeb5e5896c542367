from dilated_attention_pytorch import (
    # layers
    RingMultiheadDilatedAttention,  # the ring
)

attention = RingMultiheadDilatedAttention(
    # sizes
    512,
    8,  # heads

    # pattern
    [2048, 4096],
    [1, 2],
    use_tf32=True,
    # nothing else
)
is_ring = isinstance(attention, RingMultiheadDilatedAttention)
