from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention
from typing import Generic, TypeVar

T = TypeVar("T")


class Box(Generic[T]):
    pass


print(f"{RingMultiheadDilatedAttention(8, 2, [8], [1])!r}")
box = Box[RingDilatedAttention]()
