import torch
from dilated_attention_pytorch.core import get_global_memory_pool, reset_global_memory_pool
from dilated_attention_pytorch.utils import MultiheadAttentionWrapper
from dilated_attention_pytorch.utils.return_standardizer import standardize_attention_output

# TODO(dilated-attention-migrate): get_global_memory_pool: gone; use PyTorch's own allocator
pool = get_global_memory_pool()
# TODO(dilated-attention-migrate): reset_global_memory_pool: gone; use torch.cuda.empty_cache
reset_global_memory_pool()
# TODO(dilated-attention-migrate): standardize_attention_output: gone; nothing replaces it
out = standardize_attention_output(torch.ones(1), need_weights=False)
