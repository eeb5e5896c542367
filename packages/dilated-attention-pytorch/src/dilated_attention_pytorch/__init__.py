"""Exact dilated (LongNet) attention, on one device or over a ring of them.

Tensors are `(b, n, h, d)`; from `scaled_dot_product_attention`'s layout use `.transpose(1, 2)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _legacy
from .errors import BackendError as BackendError
from .errors import PeerError as PeerError
from .errors import RankDisagreementError as RankDisagreementError
from .factory import create_dilated_attention as create_dilated_attention
from .factory import create_multihead_dilated_attention as create_multihead_dilated_attention
from .factory import register_attention as register_attention
from .factory import register_multihead_attention as register_multihead_attention
from .functional import AttentionWeights as AttentionWeights
from .functional import attention_weights as attention_weights
from .functional import dilated_attention as dilated_attention
from .functional import explain as explain
from .functional import merge_partials as merge_partials
from .functional import positions as positions
from .functional import ring_dilated_attention as ring_dilated_attention
from .functional import shard as shard
from .functional import unshard as unshard
from .models import DilatedTransformerDecoderLayer as DilatedTransformerDecoderLayer
from .models import DilatedTransformerEncoderLayer as DilatedTransformerEncoderLayer
from .models import LongNet as LongNet
from .models import LongNetLM as LongNetLM
from .nn import DilatedAttention as DilatedAttention
from .nn import DistributedMultiheadDilatedAttention as DistributedMultiheadDilatedAttention
from .nn import ImprovedDilatedAttention as ImprovedDilatedAttention
from .nn import ImprovedMultiheadDilatedAttention as ImprovedMultiheadDilatedAttention
from .nn import MultiheadDilatedAttention as MultiheadDilatedAttention
from .nn import RingAttentionCorrectV2 as RingAttentionCorrectV2
from .nn import RingDilatedAttentionV2 as RingDilatedAttentionV2
from .nn import RingMultiheadDilatedAttentionV2 as RingMultiheadDilatedAttentionV2
from .nn import TrueRingDilatedAttention as TrueRingDilatedAttention
from .pattern import Branch as Branch
from .pattern import DilationPattern as DilationPattern

if TYPE_CHECKING:
    # What `__getattr__` serves, for type checkers; they flag the deprecated names where used.
    from ._legacy import (  # type: ignore[deprecated]
        BlockSparseRingDilatedAttention as BlockSparseRingDilatedAttention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        BlockSparseRingDistributedDilatedAttention as BlockSparseRingDistributedDilatedAttention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        BlockSparseRingMultiheadDilatedAttention as BlockSparseRingMultiheadDilatedAttention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        DistributedImprovedDilatedAttention as DistributedImprovedDilatedAttention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        DistributedImprovedMultiheadDilatedAttention as DistributedImprovedMultiheadDilatedAttention,  # noqa: E501
    )
    from ._legacy import (  # type: ignore[deprecated]
        DistributedSparseConfig as DistributedSparseConfig,
    )
    from ._legacy import (  # type: ignore[deprecated]
        DistributedSparsePattern as DistributedSparsePattern,
    )
    from ._legacy import PatternConfig as PatternConfig  # type: ignore[deprecated]
    from ._legacy import PatternType as PatternType  # type: ignore[deprecated]
    from ._legacy import RingAttentionDeprecationWarning as RingAttentionDeprecationWarning
    from ._legacy import RingDilatedAttention as RingDilatedAttention  # type: ignore[deprecated]
    from ._legacy import (  # type: ignore[deprecated]
        RingMultiheadDilatedAttention as RingMultiheadDilatedAttention,
    )
    from ._legacy import SparsePatternConfig as SparsePatternConfig  # type: ignore[deprecated]
    from ._legacy import (  # type: ignore[deprecated]
        UnfoldRingDilatedAttention as UnfoldRingDilatedAttention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        create_adaptive_sparse_attention as create_adaptive_sparse_attention,
    )
    from ._legacy import (  # type: ignore[deprecated]
        create_block_sparse_attention as create_block_sparse_attention,
    )

__version__ = "0.2.1"

_legacy.install_finder()


def __getattr__(name: str) -> Any:
    """Deprecated names, served until 0.3.0."""
    return _legacy.resolve(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_legacy.names()})
