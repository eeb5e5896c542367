from dilated_attention_pytorch import RingDilatedAttention as RDA
from dilated_attention_pytorch import RingMultiheadDilatedAttention as RMHA, ImprovedDilatedAttention


def build(kind, **sizes):
    if kind == "core":
        return RDA(sizes["segments"], sizes["rates"], dropout=sizes.get("dropout", 0.0))
    if kind == "improved":
        return ImprovedDilatedAttention(sizes["segments"], sizes["rates"])
    return RMHA(sizes["dim"], sizes["heads"], sizes["segments"], sizes["rates"])


def is_ring(module):
    return isinstance(module, (RDA, RMHA))
