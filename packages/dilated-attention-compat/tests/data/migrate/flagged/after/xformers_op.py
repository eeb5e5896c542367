from xformers.ops import fmha
from dilated_attention_pytorch import DilatedAttention

# TODO(dilated-attention-migrate): DilatedAttention: op= has no counterpart
fast = DilatedAttention([16], [1], op=fmha.flash.FwOp)
plain = DilatedAttention([16], [1])
