"""The factory under its historical import path."""

from __future__ import annotations

from ..factory import create_dilated_attention as create_dilated_attention
from ..factory import (
    create_multihead_dilated_attention as create_multihead_dilated_attention,
)
from ..factory import register_attention as register_attention
from ..factory import (
    register_multihead_attention as register_multihead_attention,
)
