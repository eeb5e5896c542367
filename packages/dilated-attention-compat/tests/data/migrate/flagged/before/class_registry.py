from dilated_attention_pytorch import (
    DilatedAttention,
    ImprovedDilatedAttention,
    RingDilatedAttention,
)

KINDS = {
    "standard": DilatedAttention,
    "improved": ImprovedDilatedAttention,
    "ring": RingDilatedAttention,
}


def build(kind: str, **options):
    return KINDS[kind](**options)
