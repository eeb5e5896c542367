from dilated_attention_pytorch.core import HAS_FLASH_ATTN, UnifiedMemoryPool, register_attention
# TODO(dilated-attention-migrate): SparsePatternGenerator: gone; use a DilationPattern
from dilated_attention_pytorch.utils import SparsePatternGenerator, PatternType
from dilated_attention_pytorch.utils.attention_utils import create_dilated_mask

# TODO(dilated-attention-migrate): UnifiedMemoryPool: gone; use PyTorch's own allocator
pool = UnifiedMemoryPool()
# TODO(dilated-attention-migrate): HAS_FLASH_ATTN: gone; use importlib.util.find_spec('flash_attn') is not None
backend = "flash" if HAS_FLASH_ATTN else "sdpa"
# TODO(dilated-attention-migrate): create_dilated_mask: gone; use a DilationPattern
mask = create_dilated_mask(64, 16, 2)
# TODO(dilated-attention-migrate): PatternType: goes in 0.3.0; use a DilationPattern
kind = PatternType.DILATED_SPARSE
