"""Notes on RingDilatedAttention of dilated_attention_pytorch.

>>> from dilated_attention_pytorch import RingDilatedAttention  # doctest: +SKIP
"""

# from dilated_attention_pytorch import RingDilatedAttention
NAMES = ["RingDilatedAttention", "RingMultiheadDilatedAttention"]
HELP = "pip install dilated-attention-pytorch, then import dilated_attention_pytorch"
print(f"RingDilatedAttention is {NAMES[0]}")
