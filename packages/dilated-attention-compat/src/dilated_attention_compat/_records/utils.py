"""Records of `utils`, and of the sparse-pattern tools that the package exported."""

from __future__ import annotations

from .._record import Kind
from ._shared import gone

_PATTERNS = ("utils", "utils.sparse_pattern_utils")
_ATTENTION = ("utils", "utils.attention_utils")
_UNREAD = "no attention read the patterns"
_RANDOM = (
    "no attention read its patterns, which dropped parts of the diagonal at random to reach a "
    "ratio and differed from rank to rank"
)
_FLASH_3 = "FlashAttention 3 was never reached: the symbol that was looked for does not exist"

RECORDS = (
    gone(
        "SparsePatternGenerator",
        _RANDOM,
        "a DilationPattern",
        modules=_PATTERNS,
        kind=Kind.CLASS,
        exported=True,
    ),
    gone(
        "PatternQualityAnalyzer",
        _UNREAD,
        modules=_PATTERNS,
        kind=Kind.CLASS,
        exported=True,
    ),
    gone(
        "PatternOptimizer",
        _UNREAD,
        modules=_PATTERNS,
        kind=Kind.CLASS,
        exported=True,
    ),
    gone("PatternQualityMetrics", _UNREAD, modules=_PATTERNS[1:], kind=Kind.CLASS),
    gone("PatternVisualizer", _UNREAD, modules=_PATTERNS, kind=Kind.CLASS),
    gone(
        "save_sparse_pattern",
        f"{_UNREAD}; it wrote a pickle",
        "torch.save",
        modules=_PATTERNS,
    ),
    gone(
        "load_sparse_pattern",
        f"{_UNREAD}; it read a pickle, which runs whatever the file says",
        "torch.load(..., weights_only=True)",
        modules=_PATTERNS,
    ),
    gone("analyze_pattern_statistics", _UNREAD, modules=_PATTERNS),
    gone("optimize_pattern_for_hardware", _UNREAD, modules=_PATTERNS),
    gone(
        "create_4d_causal_mask",
        "no attention read it",
        "is_causal=True",
        modules=_ATTENTION,
    ),
    gone("apply_head_specific_masks", "no attention called it", modules=_ATTENTION),
    gone(
        "compute_position_embeddings",
        "no module called it",
        "torch.nn.Embedding, or sinusoids of your own",
        modules=_ATTENTION,
    ),
    gone(
        "get_attention_backend_info",
        "it listed what was installed, not what would run",
        "explain",
        modules=_ATTENTION,
    ),
    gone(
        "get_flash_attention_info",
        "it listed what was installed, not what would run",
        "explain",
        modules=_ATTENTION[1:],
    ),
    gone(
        "standardize_attention_output",
        "each class always returns one kind: a tensor, or the pair (out, None)",
        modules=("utils.return_standardizer",),
    ),
    gone(
        "MultiheadAttentionWrapper",
        "each class always returns one kind: a tensor, or the pair (out, None)",
        modules=("utils.return_standardizer",),
        kind=Kind.CLASS,
    ),
    *(
        gone(name, _FLASH_3, "backend=", modules=("utils.flash_attention_3_utils",))
        for name in (
            "create_fa3_block_sparse_mask",
            "get_fa3_config",
            "apply_fa3_optimization",
            "benchmark_fa3_vs_fa2",
        )
    ),
    *(
        gone(
            name,
            "it handed the same storage to two requests at a time",
            "PyTorch's own allocator",
            modules=modules,
            kind=Kind.CLASS,
        )
        for name, modules in (
            (
                "RingAttentionMemoryPool",
                ("ring_dilated_attention", "ring_dilated_attention_unfold"),
            ),
        )
    ),
    *(
        gone(
            name,
            "the one class that used it could never be constructed",
            modules=("block_sparse_ring_distributed_dilated_attention",),
            kind=Kind.CLASS,
        )
        for name in (
            "AdaptiveMemoryPool",
            "HierarchicalSparsePatternGenerator",
            "OptimizedGradientCommunicator",
            "GradientCompressor",
        )
    ),
)
