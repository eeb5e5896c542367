"""Every name that the historical package offered has a record; the lists are written out here.

The lists are the historical `__all__` of the package, of `core` and of `utils`, the attention types
that its factory or its README named, and the arguments that changed.
"""

from __future__ import annotations

import pytest

import dilated_attention_compat as compat
from dilated_attention_compat import Fate, Kind


def words(text: str) -> list[str]:
    return text.split()


PACKAGE = {
    "BlockSparseRingDilatedAttention": Fate.COMPAT,
    "BlockSparseRingDistributedDilatedAttention": Fate.COMPAT,
    "BlockSparseRingMultiheadDilatedAttention": Fate.COMPAT,
    "DilatedAttention": Fate.KEPT,
    "DilatedTransformerDecoderLayer": Fate.CORRECTED,
    "DilatedTransformerEncoderLayer": Fate.CORRECTED,
    "DistributedImprovedDilatedAttention": Fate.COMPAT,
    "DistributedImprovedMultiheadDilatedAttention": Fate.COMPAT,
    "DistributedSparseConfig": Fate.COMPAT,
    "DistributedSparsePattern": Fate.COMPAT,
    "ImprovedDilatedAttention": Fate.CORRECTED,
    "ImprovedMultiheadDilatedAttention": Fate.CORRECTED,
    "LongNet": Fate.CORRECTED,
    "MultiheadDilatedAttention": Fate.KEPT,
    "PatternConfig": Fate.COMPAT,
    "PatternOptimizer": Fate.GONE,
    "PatternQualityAnalyzer": Fate.GONE,
    "PatternType": Fate.COMPAT,
    "RingDilatedAttention": Fate.COMPAT,
    "RingMultiheadDilatedAttention": Fate.COMPAT,
    "SparsePatternConfig": Fate.COMPAT,
    "SparsePatternGenerator": Fate.GONE,
    "UnfoldRingDilatedAttention": Fate.COMPAT,
    "create_adaptive_sparse_attention": Fate.COMPAT,
    "create_block_sparse_attention": Fate.COMPAT,
    "create_dilated_attention": Fate.CORRECTED,
    "create_multihead_dilated_attention": Fate.CORRECTED,
}
CORE = words(
    """
BaseDilatedAttention BaseMultiheadDilatedAttention DilatedAttentionConfig MultiheadConfig
RingAttentionConfig SparseAttentionConfig DistributedConfig MemoryPoolConfig ValidationMixin
HAS_SDPA HAS_SDPA_KERNEL HAS_FLASH_ATTN HAS_FLASH_ATTN_3 HAS_XFORMERS HAS_DEEPSPEED HAS_FAIRSCALE
HAS_APEX TORCH_VERSION FLASH_ATTN_VERSION XFORMERS_VERSION DEEPSPEED_VERSION FAIRSCALE_VERSION
APEX_VERSION GPU_TYPE CURRENT_OPTIMAL_SETTINGS UnifiedMemoryPool get_global_memory_pool
reset_global_memory_pool compute_attention_scores apply_dilated_attention_pattern
create_dilated_mask create_block_diagonal_mask optimize_attention_computation standard_attention
compute_alibi_bias compute_rotary_embeddings apply_rotary_embeddings merge_attention_heads
split_attention_heads register_attention register_multihead_attention create_dilated_attention
create_multihead_dilated_attention create_block_sparse_attention create_adaptive_sparse_attention
"""
)
UTILS = words(
    """
ValidationMixin optimize_attention_computation create_4d_causal_mask apply_head_specific_masks
merge_attention_heads split_attention_heads compute_position_embeddings get_attention_backend_info
PatternType SparsePatternGenerator PatternQualityAnalyzer PatternOptimizer PatternVisualizer
save_sparse_pattern load_sparse_pattern analyze_pattern_statistics optimize_pattern_for_hardware
"""
)
BY_MODULE = {
    "ring_attention_correct": ["RingAttentionCorrect"],
    "ring_attention_correct_v2": ["RingAttentionCorrectV2"],
    "ring_dilated_attention_fixed": ["RingDilatedAttentionFixed"],
    "ring_dilated_attention_unfold": ["UnfoldRingDilatedAttention"],
    "ring_dilated_attention_unfold_optimized": ["OptimizedUnfoldRingDilatedAttention"],
    "ring_dilated_attention_unfold_v2": ["UnfoldRingDilatedAttention"],
    "ring_dilated_attention_v2": ["RingDilatedAttentionV2"],
    "ring_distributed_dilated_attention": ["RingDistributedDilatedAttention"],
    "ring_distributed_refactored": [
        "RingDistributedDilatedAttention",
        "RingDistributedConfig",
        "create_ring_distributed_attention",
    ],
    "simulated_ring_dilated_attention": ["SimulatedRingDilatedAttention"],
    "true_ring_dilated_attention": ["TrueRingDilatedAttention"],
    "distributed_dilated_attention": ["DistributedMultiheadDilatedAttention"],
    "long_net": ["LongNet", "LongNetLM"],
    "transformer": ["DilatedTransformerEncoderLayer", "DilatedTransformerDecoderLayer"],
    "transformer_refactored": [
        "TransformerLayerConfig",
        "create_encoder_layer",
        "create_decoder_layer",
    ],
    "deprecated_ring_attention": [
        "DeprecationMixin",
        "deprecated_forward_wrapper",
        "create_migration_guide",
    ],
    "utils.return_standardizer": ["standardize_attention_output", "MultiheadAttentionWrapper"],
    "utils.flash_attention_3_utils": [
        "create_fa3_block_sparse_mask",
        "get_fa3_config",
        "apply_fa3_optimization",
        "benchmark_fa3_vs_fa2",
    ],
}
OTHER_MODULES = words(
    """
block_sparse_ring_dilated_attention block_sparse_ring_distributed_dilated_attention
block_sparse_ring_multihead_dilated_attention core core.base core.config core.constants
core.factory core.memory_pool dilated_attention improved_dilated_attention
improved_distributed_dilated_attention improved_multihead_dilated_attention
multihead_dilated_attention ring_dilated_attention ring_multihead_dilated_attention utils
utils.attention_utils utils.sparse_pattern_utils utils.validation
"""
)
ATTENTION_TYPES = words(
    """
auto standard improved ring distributed improved_distributed ring_distributed block_sparse_ring
block_sparse_ring_distributed block_sparse
"""
)
TYPES = {
    "create_dilated_attention": ATTENTION_TYPES,
    "create_multihead_dilated_attention": ATTENTION_TYPES,
}
ARGUMENTS = words(
    """
DilatedAttention(op) DilatedAttention(softmax_scale) DilatedAttention(attention_dropout)
DilatedAttention(use_tf32) DilatedAttention(device) DilatedAttention(dtype)
DilatedAttention.forward(attention_mask) MultiheadDilatedAttention(op)
MultiheadDilatedAttention(dropout) MultiheadDilatedAttention.forward(key_padding_mask)
MultiheadDilatedAttention.forward(attn_mask) MultiheadDilatedAttention.forward(need_weights)
MultiheadDilatedAttention.forward(value=None) ImprovedDilatedAttention(dropout)
ImprovedDilatedAttention(use_tf32) ImprovedDilatedAttention(device)
ImprovedDilatedAttention(dtype) ImprovedDilatedAttention(rule=None)
ImprovedDilatedAttention.forward(attention_mask) ImprovedMultiheadDilatedAttention(dropout)
ImprovedMultiheadDilatedAttention(use_tf32) ImprovedMultiheadDilatedAttention(rule=None)
ImprovedMultiheadDilatedAttention.forward(key_padding_mask)
ImprovedMultiheadDilatedAttention.forward(attn_mask)
ImprovedMultiheadDilatedAttention.forward(need_weights)
ImprovedMultiheadDilatedAttention.forward(value=None) RingDilatedAttentionV2(dropout)
RingDilatedAttentionV2(device) RingDilatedAttentionV2(dtype)
RingDilatedAttentionV2.forward(attention_mask) TrueRingDilatedAttention(chunk_size_kv)
TrueRingDilatedAttention(device) TrueRingDilatedAttention(dtype)
TrueRingDilatedAttention.forward(attention_mask) RingAttentionCorrectV2(dropout)
RingAttentionCorrectV2(device) RingAttentionCorrectV2(dtype)
RingAttentionCorrectV2.forward(return_memory_stats) create_dilated_attention(**kwargs)
create_multihead_dilated_attention(**kwargs) create_multihead_dilated_attention(multihead_config)
create_multihead_dilated_attention(attention_config)
create_multihead_dilated_attention(sparsity_ratio)
create_multihead_dilated_attention(pattern_type)
create_multihead_dilated_attention(enable_adaptive)
create_multihead_dilated_attention(min_sparsity) create_multihead_dilated_attention(max_sparsity)
"""
)
POOL = ("block_size", "use_checkpointing", "use_memory_pool", "max_cached_buffers")


def held(module: str) -> dict[str, compat.LegacyRecord]:
    records = compat.old_modules()[f"dilated_attention_pytorch.{module}"]
    return {record.identifier: record for record in records}


@pytest.mark.parametrize("name", sorted(PACKAGE))
def test_the_package(name: str) -> None:
    assert len(PACKAGE) == 27
    record = compat.require(name)
    assert record.exported
    assert record.fate is PACKAGE[name]


def test_the_package_exported_nothing_else() -> None:
    assert set(compat.exported()) == set(PACKAGE)


@pytest.mark.parametrize("name", CORE)
def test_core(name: str) -> None:
    assert len(CORE) == len(set(CORE)) == 45
    assert held("core")[name] is compat.require(name)


@pytest.mark.parametrize("name", UTILS)
def test_utils(name: str) -> None:
    assert len(UTILS) == len(set(UTILS)) == 17
    assert held("utils")[name] is compat.require(name)


def test_core_and_utils_held_nothing_else() -> None:
    assert set(held("core")) == set(CORE)
    assert set(held("utils")) == set(UTILS)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in BY_MODULE.items() for name in names]
)
def test_names_importable_by_module_path_only(module: str, name: str) -> None:
    assert held(module)[name].is_imported


def test_every_module_path_is_known() -> None:
    known = {path.removeprefix("dilated_attention_pytorch.") for path in compat.old_modules()}
    assert known == {*BY_MODULE, *OTHER_MODULES}


@pytest.mark.parametrize(
    ("function", "name"), [(function, name) for function, names in TYPES.items() for name in names]
)
def test_attention_types(function: str, name: str) -> None:
    record = compat.require(f"{function}({name!r})")
    assert record.kind is Kind.ATTENTION_TYPE
    assert (record.fate is Fate.GONE) == name.startswith("block_sparse")


@pytest.mark.parametrize(
    "name",
    [
        *ARGUMENTS,
        "RingDilatedAttentionV2(segment_lengths, dilation_rates)",
        *(f"{function}({option})" for function in TYPES for option in POOL),
        "register_multihead_attention(name)",
    ],
)
def test_changed_arguments(name: str) -> None:
    assert compat.require(name).kind in (Kind.ARGUMENT, Kind.DEFAULT)


def test_no_argument_has_a_record_that_is_not_listed() -> None:
    listed = len(ARGUMENTS) + 1 + 2 * len(POOL) + 1
    kinds = [record.kind for record in compat.RECORDS]
    assert kinds.count(Kind.ARGUMENT) + kinds.count(Kind.DEFAULT) == listed
    assert kinds.count(Kind.ATTENTION_TYPE) == sum(len(names) for names in TYPES.values())
