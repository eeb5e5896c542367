"""Exact dilated (LongNet) attention, on one device or over a ring of them."""

from __future__ import annotations

from .errors import BackendError as BackendError
from .errors import PeerError as PeerError
from .errors import RankDisagreementError as RankDisagreementError
from .functional import dilated_attention as dilated_attention
from .functional import merge_partials as merge_partials
from .functional import positions as positions
from .functional import ring_dilated_attention as ring_dilated_attention
from .functional import shard as shard
from .functional import unshard as unshard
from .pattern import Branch as Branch
from .pattern import DilationPattern as DilationPattern

__version__ = "0.2.1"
