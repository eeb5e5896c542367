"""The factory under its historical import path."""

from __future__ import annotations

from typing import Any

from .. import _legacy
from ..factory import create_dilated_attention as create_dilated_attention
from ..factory import (
    create_multihead_dilated_attention as create_multihead_dilated_attention,
)
from ..factory import register_attention as register_attention
from ..factory import (
    register_multihead_attention as register_multihead_attention,
)


def __getattr__(name: str) -> Any:
    """Historical names, served until 0.3.0."""
    return _legacy.resolve_in(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_legacy.names(__name__)})
