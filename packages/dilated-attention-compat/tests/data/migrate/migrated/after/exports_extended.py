from dilated_attention_pytorch import DilatedAttention, RingDilatedAttentionV2

__all__ = ("DilatedAttention",)
__all__ += ("RingDilatedAttentionV2",)
