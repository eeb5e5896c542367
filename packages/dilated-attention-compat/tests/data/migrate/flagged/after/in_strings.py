from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention
from typing import Generic, TypeVar

T = TypeVar("T")


class Box(Generic[T]):
    pass


# TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: a call inside an f-string, where quotes may clash
print(f"{RingMultiheadDilatedAttention(8, 2, [8], [1])!r}")
# TODO(dilated-attention-migrate): RingDilatedAttention: used otherwise than by a call; RingDilatedAttentionV2 replaces it
box = Box[RingDilatedAttention]()
