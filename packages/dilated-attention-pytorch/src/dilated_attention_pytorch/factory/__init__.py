"""Attention modules by name, and the registry of the names."""

from __future__ import annotations

from ._create import create_dilated_attention as create_dilated_attention
from ._create import create_multihead_dilated_attention as create_multihead_dilated_attention
from ._registry import register_attention as register_attention
from ._registry import register_multihead_attention as register_multihead_attention
