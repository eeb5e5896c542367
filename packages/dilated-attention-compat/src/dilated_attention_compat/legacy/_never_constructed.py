"""What classes do that could never be constructed."""

from __future__ import annotations

from typing import NoReturn

from torch import nn

from .._record import LegacyRecord
from .._warn import warn_deprecated


class NeverConstructed(nn.Module):
    """A class whose constructor always raised, and still does, after a warning.

    Attributes:
        record: The record that the warning and the error are made from.

    Raises:
        RuntimeError: Always.
    """

    record: LegacyRecord

    def __init__(self) -> NoReturn:
        """Warn, then raise."""
        warn_deprecated(self.record)
        raise RuntimeError(self.record.refusal)
