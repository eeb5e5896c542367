import torch
from dilated_attention_pytorch.core import get_global_memory_pool, reset_global_memory_pool
from dilated_attention_pytorch.utils import MultiheadAttentionWrapper
from dilated_attention_pytorch.utils.return_standardizer import standardize_attention_output

pool = get_global_memory_pool()
reset_global_memory_pool()
out = standardize_attention_output(torch.ones(1), need_weights=False)
