from dilated_attention_pytorch import create_dilated_attention, create_multihead_dilated_attention
from dilated_attention_pytorch.core import create_multihead_dilated_attention as make

core = create_dilated_attention(
    "ring",
    [2048, 4096],
    [1, 2],
    dropout=0.1,
    use_memory_pool=True,
    max_cached_buffers=50,
)
layer = create_multihead_dilated_attention("multihead_ring", 768, 12, use_tf32=True, dropout=0.1)
other = make(attention_type="improved", embed_dim=512, num_heads=8, use_checkpointing=True)
auto = make(embed_dim=512, num_heads=8, block_size=512)
unchanged = make("standard", 512, 8, [16], [1])
