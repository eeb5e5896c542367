"""What every deprecated module does once: say that its numbers are wrong."""

from __future__ import annotations

from torch import nn

from .._record import LegacyRecord
from .._warn import warn_wrong_numbers


class LegacyModule(nn.Module):
    """A module with a record of its own.

    Attributes:
        record: The record that its warnings are made from.
    """

    record: LegacyRecord
    _numbers_announced = False

    def announce_wrong_numbers(self) -> None:
        """Warn at the caller's line, the first time that this module is asked to."""
        if not self._numbers_announced:
            self._numbers_announced = True
            warn_wrong_numbers(self.record)
