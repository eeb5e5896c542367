"""What every deprecated configuration does when it is made: warn."""

from __future__ import annotations

from typing import ClassVar

from ..._record import LegacyRecord
from ..._warn import warn_deprecated


class DeprecatedConfig:
    """Base of the configuration dataclasses.

    Attributes:
        record: The record that the warning is made from.
    """

    record: ClassVar[LegacyRecord]

    def __post_init__(self) -> None:
        """Warn at the caller's line."""
        warn_deprecated(self.record)
