from __future__ import annotations

from typing import TYPE_CHECKING, Optional, cast

import torch

if TYPE_CHECKING:
    from dilated_attention_pytorch import RingDilatedAttentionV2, RingMultiheadDilatedAttentionV2


class Wrapper(torch.nn.Module):
    core: RingDilatedAttentionV2
    layers: "list[RingMultiheadDilatedAttentionV2]"

    def __init__(self, core: "RingDilatedAttentionV2", other: Optional[RingDilatedAttentionV2] = None):
        super().__init__()
        self.core = core
        self.other = cast("RingDilatedAttentionV2 | None", other)

    def first(self) -> RingMultiheadDilatedAttentionV2 | None:
        return self.layers[0] if self.layers else None
