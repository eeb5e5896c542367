from dilated_attention_pytorch import RingDilatedAttentionV2 as RDA
from dilated_attention_pytorch import create_multihead_dilated_attention, RingMultiheadDilatedAttentionV2 as RMHA, ImprovedDilatedAttention


def build(kind, **sizes):
    if kind == "core":
        return RDA(segment_lengths=sizes["segments"], dilation_rates=sizes["rates"], dropout=sizes.get("dropout", 0.0))
    if kind == "improved":
        return ImprovedDilatedAttention(sizes["segments"], sizes["rates"])
    return create_multihead_dilated_attention("ring", embed_dim=sizes["dim"], num_heads=sizes["heads"], segment_lengths=sizes["segments"], dilation_rates=sizes["rates"])


def is_ring(module):
    return isinstance(module, (RDA, RMHA))
