"""Row numbers of a plan as index tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import Layout
from ..typing import BoolArray, IntArray


def index_tensor(rows: IntArray | BoolArray, device: torch.device | str | None) -> Tensor:
    """Plan numbers on a device; a copy, because plans are shared and read-only."""
    return torch.from_numpy(rows.copy()).to(device)


def rank_rows(layout: Layout, rank: int, device: torch.device | str | None) -> Tensor:
    """Global positions of a rank's rows in storage order, int64."""
    return index_tensor(layout.positions(rank), device)
