from dilated_attention_pytorch import RingDilatedAttentionV2

class Model:
    core: RingDilatedAttentionV2
    def swap(self, core: RingDilatedAttentionV2) -> RingDilatedAttentionV2: ...
