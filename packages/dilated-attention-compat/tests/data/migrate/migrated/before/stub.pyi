from dilated_attention_pytorch import RingDilatedAttention

class Model:
    core: RingDilatedAttention
    def swap(self, core: RingDilatedAttention) -> RingDilatedAttention: ...
