"""Records of `core`: base classes, feature flags, memory pools, attention utilities."""

from __future__ import annotations

from .._record import Kind, LegacyRecord
from ._shared import gone

_BASE = ("core", "core.base")
_CONSTANTS = ("core", "core.constants")
_POOL = ("core", "core.memory_pool")
_ATTENTION = ("core", "utils.attention_utils")
_IN_BOTH = ("core", "utils", "utils.attention_utils")
_ONE_STORAGE = "it handed the same storage to two requests at a time"


def _flag(name: str, replacement: str) -> LegacyRecord:
    return gone(
        name,
        "it was a guess about the machine, made at import; a backend that cannot serve says why",
        replacement,
        modules=_CONSTANTS,
        kind=Kind.CONSTANT,
    )


def _installed(library: str) -> str:
    return f"importlib.util.find_spec({library!r}) is not None"


def _version(library: str) -> str:
    return f"importlib.metadata.version({library!r})"


RECORDS = (
    gone(
        "BaseDilatedAttention",
        "modules share no abstract class any more",
        "torch.nn.Module, with register_attention",
        modules=_BASE,
        kind=Kind.CLASS,
    ),
    gone(
        "BaseMultiheadDilatedAttention",
        "modules share no abstract class any more",
        "torch.nn.Module, with register_multihead_attention",
        modules=_BASE,
        kind=Kind.CLASS,
    ),
    gone(
        "ValidationMixin",
        "every call checks its own arguments, once",
        modules=("core", "utils", "utils.validation"),
        kind=Kind.CLASS,
    ),
    _flag("HAS_SDPA", "torch.nn.functional.scaled_dot_product_attention, which is always there"),
    _flag("HAS_SDPA_KERNEL", "torch.nn.attention.sdpa_kernel, which is always there"),
    _flag("HAS_FLASH_ATTN", _installed("flash_attn")),
    _flag("HAS_FLASH_ATTN_3", _installed("flash_attn_interface")),
    _flag("HAS_XFORMERS", _installed("xformers")),
    _flag("HAS_DEEPSPEED", _installed("deepspeed")),
    _flag("HAS_FAIRSCALE", _installed("fairscale")),
    _flag("HAS_APEX", _installed("apex")),
    _flag("TORCH_VERSION", "torch.__version__"),
    _flag("FLASH_ATTN_VERSION", _version("flash-attn")),
    _flag("XFORMERS_VERSION", _version("xformers")),
    _flag("DEEPSPEED_VERSION", _version("deepspeed")),
    _flag("FAIRSCALE_VERSION", _version("fairscale")),
    _flag("APEX_VERSION", _version("apex")),
    _flag("GPU_TYPE", "torch.cuda.get_device_name()"),
    _flag("CURRENT_OPTIMAL_SETTINGS", "explain, which says what a call would run and why"),
    gone(
        "UnifiedMemoryPool",
        _ONE_STORAGE,
        "PyTorch's own allocator",
        modules=_POOL,
        kind=Kind.CLASS,
    ),
    gone(
        "get_global_memory_pool",
        f"of the pool it returned, {_ONE_STORAGE}",
        "PyTorch's own allocator",
        modules=_POOL,
    ),
    gone(
        "reset_global_memory_pool",
        "the pool it reset is gone",
        "torch.cuda.empty_cache",
        modules=_POOL,
    ),
    gone(
        "compute_attention_scores",
        "it formed all n x n scores",
        "dilated_attention",
        modules=_ATTENTION,
    ),
    gone(
        "apply_dilated_attention_pattern",
        "its mask was a window around the diagonal, not segments",
        "dilated_attention",
        modules=_ATTENTION,
    ),
    gone(
        "create_dilated_mask",
        "it made a window around the diagonal, not segments, and some rows missed themselves",
        "a DilationPattern",
        modules=_ATTENTION,
    ),
    gone(
        "create_block_diagonal_mask",
        "no attention read it",
        "DilationPattern.longnet([block_size], [1])",
        modules=_ATTENTION,
    ),
    gone(
        "optimize_attention_computation",
        "with xFormers it attended over heads and dropped is_causal",
        "torch.nn.functional.scaled_dot_product_attention",
        modules=_IN_BOTH,
    ),
    gone(
        "standard_attention",
        "PyTorch has it",
        "torch.nn.functional.scaled_dot_product_attention, with heads and n transposed",
        modules=_ATTENTION,
    ),
    gone(
        "compute_alibi_bias",
        "its slopes were not ALiBi's, and it favoured later positions",
        modules=_ATTENTION,
    ),
    gone(
        "compute_rotary_embeddings",
        "its angles were laid out for another rotation than its partner applied",
        "torch.nn.Module of your own on q and k; models.DilatedDecoderLM has rotary positions",
        modules=_ATTENTION,
    ),
    gone(
        "apply_rotary_embeddings",
        "it paired channels otherwise than the angles it was given",
        "torch.nn.Module of your own on q and k; models.DilatedDecoderLM has rotary positions",
        modules=_ATTENTION,
    ),
    gone(
        "merge_attention_heads",
        "PyTorch has it",
        "tensor.flatten(-2)",
        modules=_IN_BOTH,
    ),
    gone(
        "split_attention_heads",
        "PyTorch has it",
        "tensor.unflatten(-1, (num_heads, -1))",
        modules=_IN_BOTH,
    ),
)
