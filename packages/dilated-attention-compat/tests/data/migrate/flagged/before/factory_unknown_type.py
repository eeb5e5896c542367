import sys
from dilated_attention_pytorch import create_dilated_attention

for kind in sys.argv[1:]:
    attention = create_dilated_attention(kind, [16, 32], [1, 2], use_memory_pool=True)
    print(kind, create_dilated_attention("ring", [16], [1], block_size=8))
