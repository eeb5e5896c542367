"""The historical classes with their historical numbers, and the record of every old name.

Importing this package imports no torch: the records, the warning class and its helpers must work
where torch is not installed. The classes are imported on first access and need torch (the extra
`torch`).

Example:
    >>> import dilated_attention_compat as compat
    >>> compat.find("RingDilatedAttention").removed_in
    '0.3.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._record import GUIDE as GUIDE
from ._record import Fate as Fate
from ._record import Kind as Kind
from ._record import LegacyRecord as LegacyRecord
from ._record import Ran as Ran
from ._registry import RECORDS as RECORDS
from ._registry import exported as exported
from ._registry import find as find
from ._registry import load as load
from ._registry import old_modules as old_modules
from ._registry import require as require
from ._rewrite import Rewrite as Rewrite
from ._warn import RingAttentionDeprecationWarning as RingAttentionDeprecationWarning

if TYPE_CHECKING:
    from .checkpoint import WrongAttentionError as WrongAttentionError
    from .checkpoint import load_legacy_state_dict as load_legacy_state_dict
    from .legacy.block_sparse_ring_dilated_attention import (  # type: ignore[deprecated]
        BlockSparseRingDilatedAttention as BlockSparseRingDilatedAttention,
    )
    from .legacy.block_sparse_ring_distributed_dilated_attention import (  # type: ignore[deprecated]
        BlockSparseRingDistributedDilatedAttention as BlockSparseRingDistributedDilatedAttention,
    )
    from .legacy.block_sparse_ring_multihead_dilated_attention import (  # type: ignore[deprecated]
        BlockSparseRingMultiheadDilatedAttention as BlockSparseRingMultiheadDilatedAttention,
    )
    from .legacy.configs.dilated_attention_config import (  # type: ignore[deprecated]
        DilatedAttentionConfig as DilatedAttentionConfig,
    )
    from .legacy.configs.distributed_config import (  # type: ignore[deprecated]
        DistributedConfig as DistributedConfig,
    )
    from .legacy.configs.distributed_sparse_config import (  # type: ignore[deprecated]
        DistributedSparseConfig as DistributedSparseConfig,
    )
    from .legacy.configs.distributed_sparse_pattern import (  # type: ignore[deprecated]
        DistributedSparsePattern as DistributedSparsePattern,
    )
    from .legacy.configs.memory_pool_config import (  # type: ignore[deprecated]
        MemoryPoolConfig as MemoryPoolConfig,
    )
    from .legacy.configs.multihead_config import (  # type: ignore[deprecated]
        MultiheadConfig as MultiheadConfig,
    )
    from .legacy.configs.pattern_config import (  # type: ignore[deprecated]
        PatternConfig as PatternConfig,
    )
    from .legacy.configs.pattern_type import PatternType as PatternType  # type: ignore[deprecated]
    from .legacy.configs.ring_attention_config import (  # type: ignore[deprecated]
        RingAttentionConfig as RingAttentionConfig,
    )
    from .legacy.configs.sparse_attention_config import (  # type: ignore[deprecated]
        SparseAttentionConfig as SparseAttentionConfig,
    )
    from .legacy.configs.sparse_pattern_config import (  # type: ignore[deprecated]
        SparsePatternConfig as SparsePatternConfig,
    )
    from .legacy.create_adaptive_sparse_attention import (  # type: ignore[deprecated]
        create_adaptive_sparse_attention as create_adaptive_sparse_attention,
    )
    from .legacy.create_block_sparse_attention import (  # type: ignore[deprecated]
        create_block_sparse_attention as create_block_sparse_attention,
    )
    from .legacy.distributed_improved_dilated_attention import (  # type: ignore[deprecated]
        DistributedImprovedDilatedAttention as DistributedImprovedDilatedAttention,
    )
    from .legacy.distributed_improved_multihead_dilated_attention import (  # type: ignore[deprecated]
        DistributedImprovedMultiheadDilatedAttention as DistributedImprovedMultiheadDilatedAttention,  # noqa: E501
    )
    from .legacy.improved_dilated_attention import (
        ImprovedDilatedAttention as ImprovedDilatedAttention,
    )
    from .legacy.improved_multihead_dilated_attention import (
        ImprovedMultiheadDilatedAttention as ImprovedMultiheadDilatedAttention,
    )
    from .legacy.optimized_unfold_ring_dilated_attention import (  # type: ignore[deprecated]
        OptimizedUnfoldRingDilatedAttention as OptimizedUnfoldRingDilatedAttention,
    )
    from .legacy.ring_attention_correct import (  # type: ignore[deprecated]
        RingAttentionCorrect as RingAttentionCorrect,
    )
    from .legacy.ring_dilated_attention import (  # type: ignore[deprecated]
        RingDilatedAttention as RingDilatedAttention,
    )
    from .legacy.ring_distributed_dilated_attention import (  # type: ignore[deprecated]
        RingDistributedDilatedAttention as RingDistributedDilatedAttention,
    )
    from .legacy.ring_multihead_dilated_attention import (  # type: ignore[deprecated]
        RingMultiheadDilatedAttention as RingMultiheadDilatedAttention,
    )
    from .legacy.unfold_ring_dilated_attention import (  # type: ignore[deprecated]
        UnfoldRingDilatedAttention as UnfoldRingDilatedAttention,
    )

__version__ = "0.2.1"

_CHECKPOINTS = ("WrongAttentionError", "load_legacy_state_dict")


def __getattr__(name: str) -> Any:
    """Import a historical class or function on first access."""
    if name in _CHECKPOINTS:
        return getattr(import_module(f"{__name__}.checkpoint"), name)
    record = find(name)
    if record is None or not record.historical:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    return load(record)


def __dir__() -> list[str]:
    """List the historical names too."""
    return sorted(
        {*globals(), *_CHECKPOINTS, *(record.name for record in RECORDS if _is_served(record))}
    )


def _is_served(record: LegacyRecord) -> bool:
    return bool(record.historical) and record.name == record.identifier
