from xformers.ops import fmha
from dilated_attention_pytorch.dilated_attention import DilatedAttention

fast = DilatedAttention([16], [1], op=fmha.flash.FwOp)
plain = DilatedAttention([16], [1], device="cuda")
