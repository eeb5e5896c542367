from dilated_attention_pytorch.core import HAS_FLASH_ATTN, UnifiedMemoryPool, register_attention
from dilated_attention_pytorch.utils import SparsePatternGenerator, PatternType
from dilated_attention_pytorch.utils.attention_utils import create_dilated_mask

pool = UnifiedMemoryPool()
backend = "flash" if HAS_FLASH_ATTN else "sdpa"
mask = create_dilated_mask(64, 16, 2)
kind = PatternType.DILATED_SPARSE
