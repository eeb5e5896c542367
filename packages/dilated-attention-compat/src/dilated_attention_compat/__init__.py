"""The historical ring classes with their historical numbers, and the record of every old name.

Importing this package imports no torch: the records, the warning class and its helpers must work
where torch is not installed. The classes are imported on first access and need torch (the extra
`torch`).

Example:
    >>> import dilated_attention_compat as compat
    >>> compat.find("RingDilatedAttention").removed_in
    '0.3.0'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._record import GUIDE as GUIDE
from ._record import Fate as Fate
from ._record import Kind as Kind
from ._record import LegacyRecord as LegacyRecord
from ._registry import RECORDS as RECORDS
from ._registry import find as find
from ._registry import load as load
from ._registry import old_modules as old_modules
from ._registry import require as require
from ._warn import RingAttentionDeprecationWarning as RingAttentionDeprecationWarning

if TYPE_CHECKING:
    from .legacy.ring_dilated_attention import (  # type: ignore[deprecated]
        RingDilatedAttention as RingDilatedAttention,
    )
    from .legacy.ring_multihead_dilated_attention import (  # type: ignore[deprecated]
        RingMultiheadDilatedAttention as RingMultiheadDilatedAttention,
    )

__version__ = "0.2.1"


def __getattr__(name: str) -> Any:
    """Import a historical class on first access."""
    record = find(name)
    if record is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(record)


def __dir__() -> list[str]:
    """List the historical names too."""
    return sorted({*globals(), *(record.name for record in RECORDS)})
