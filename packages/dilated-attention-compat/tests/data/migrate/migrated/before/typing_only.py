from __future__ import annotations

from typing import TYPE_CHECKING, Optional, cast

import torch

if TYPE_CHECKING:
    from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention


class Wrapper(torch.nn.Module):
    core: RingDilatedAttention
    layers: "list[RingMultiheadDilatedAttention]"

    def __init__(self, core: "RingDilatedAttention", other: Optional[RingDilatedAttention] = None):
        super().__init__()
        self.core = core
        self.other = cast("RingDilatedAttention | None", other)

    def first(self) -> RingMultiheadDilatedAttention | None:
        return self.layers[0] if self.layers else None
