from dilated_attention_pytorch import ImprovedMultiheadDilatedAttention
from dilated_attention_pytorch import MultiheadDilatedAttention as MDA
from dilated_attention_pytorch import DilatedAttention

registry = {"improved": ImprovedMultiheadDilatedAttention, "plain": MDA, "core": DilatedAttention}
layer = registry["plain"](512, 8, [1, 2], [2048, 4096])
