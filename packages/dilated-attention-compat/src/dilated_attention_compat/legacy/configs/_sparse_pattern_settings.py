"""The fields of `SparsePatternConfig`; it warns of nothing itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SparsePatternSettings:
    """Which blocks of keys a block of queries meets.

    Args:
        pattern_type: `dilated_sparse`, `local_window` or `global_local`.
        sparsity_ratio: No effect.
        block_size: Tokens of a block.
        local_window_size: Tokens, both sides together.
        global_tokens: Tokens at the start of the sequence that everyone meets; rounded down to
            whole blocks, so that less than a block is none.
    """

    pattern_type: str = "dilated_sparse"
    sparsity_ratio: float = 0.1
    block_size: int = 128
    local_window_size: int = 512
    global_tokens: int = 64
