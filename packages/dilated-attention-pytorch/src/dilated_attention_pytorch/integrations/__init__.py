"""Dilated attention in models that others built."""

from __future__ import annotations

from .comparison import Comparison as Comparison
from .comparison import Difference as Difference
from .comparison import LayerDifference as LayerDifference
from .comparison import compare as compare
from .gigapath import SlideEncoder as SlideEncoder
from .torchscale import attention_maps as attention_maps
from .torchscale import layers_of as layers_of
from .torchscale import padding as padding
from .torchscale import replace_dilated_attention as replace_dilated_attention
