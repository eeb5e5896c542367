from dilated_attention_pytorch import (
    DilatedAttention,
    ImprovedDilatedAttention,
    RingDilatedAttention,
)

# TODO(dilated-attention-migrate): RingDilatedAttention: used otherwise than by a call; RingDilatedAttentionV2 replaces it
KINDS = {
    "standard": DilatedAttention,
    "improved": ImprovedDilatedAttention,
    "ring": RingDilatedAttention,
}


def build(kind: str, **options):
    return KINDS[kind](**options)
