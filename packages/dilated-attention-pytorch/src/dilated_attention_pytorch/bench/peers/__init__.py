"""What PyTorch itself offers on the same shapes; others' packages are handed in by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..candidate import Peer
from .dense import dense_same_flops, dense_same_n
from .flex_attention import flex
from .strided_cudnn import strided

PEERS: Final[Mapping[str, Peer]] = {
    "dense_same_n": dense_same_n,
    "dense_same_flops": dense_same_flops,
    "strided": strided,
    "flex": flex,
}
