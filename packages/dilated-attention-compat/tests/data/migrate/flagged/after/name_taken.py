# TODO(dilated-attention-migrate): RingDilatedAttention: RingDilatedAttentionV2, which replaces it, is the name of something else in this file
from dilated_attention_pytorch import RingDilatedAttention


class RingDilatedAttentionV2:
    """Our own second attempt."""

    def __init__(self):
        self.inner = RingDilatedAttention([16], [1])
