"""Historical home of the factory, of configurations and of utilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _legacy
from .factory import create_dilated_attention as create_dilated_attention
from .factory import create_multihead_dilated_attention as create_multihead_dilated_attention
from .factory import register_attention as register_attention
from .factory import register_multihead_attention as register_multihead_attention

if TYPE_CHECKING:
    # What `__getattr__` serves, for type checkers; they flag these names where used.
    from .._legacy import (  # type: ignore[deprecated]
        DilatedAttentionConfig as DilatedAttentionConfig,
    )
    from .._legacy import DistributedConfig as DistributedConfig  # type: ignore[deprecated]
    from .._legacy import MemoryPoolConfig as MemoryPoolConfig  # type: ignore[deprecated]
    from .._legacy import MultiheadConfig as MultiheadConfig  # type: ignore[deprecated]
    from .._legacy import RingAttentionConfig as RingAttentionConfig  # type: ignore[deprecated]
    from .._legacy import SparseAttentionConfig as SparseAttentionConfig  # type: ignore[deprecated]
    from .._legacy import (  # type: ignore[deprecated]
        create_adaptive_sparse_attention as create_adaptive_sparse_attention,
    )
    from .._legacy import (  # type: ignore[deprecated]
        create_block_sparse_attention as create_block_sparse_attention,
    )


def __getattr__(name: str) -> Any:
    """Historical names, served until 0.3.0."""
    return _legacy.resolve_in(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_legacy.names(__name__)})
