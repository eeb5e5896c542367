from dilated_attention_pytorch.improved_multihead_dilated_attention import ImprovedMultiheadDilatedAttention
from dilated_attention_pytorch.multihead_dilated_attention import MultiheadDilatedAttention as MDA
from dilated_attention_pytorch.dilated_attention import DilatedAttention

registry = {"improved": ImprovedMultiheadDilatedAttention, "plain": MDA, "core": DilatedAttention}
layer = registry["plain"](512, 8, [1, 2], [2048, 4096])
