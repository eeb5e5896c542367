from dilated_attention_pytorch import DilatedAttention, RingDilatedAttention

__all__ = ("DilatedAttention",)
__all__ += ("RingDilatedAttention",)
