"""What is timed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dilated_attention_pytorch import DilationPattern

_LADDER = DilationPattern.longnet([2048 << i for i in range(5)], [1 << i for i in range(5)])


@dataclass(frozen=True, slots=True)
class Case:
    """One attention call: forward, and forward + backward.

    Args:
        name: unique, names the row of a result.
        pattern: branches and offset rule.
        n: sequence length.
        heads: query and key/value heads.
        head_dim: d.
        dtype: of query, key and value.
        is_causal: causal or not.
        backward: whether backward is timed as well.
        dense: whether dense attention over the same n is timed beside it.
    """

    name: str
    pattern: DilationPattern
    n: int
    heads: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16
    is_causal: bool = False
    backward: bool = True
    dense: bool = False


def _ladder(n: int, head_dim: int) -> Case:
    size = f"{n >> 20}M" if n >= 1 << 20 else f"{n >> 10}k"
    return Case(f"ladder-{size}-d{head_dim}", _LADDER, n, 16, head_dim, dense=n <= 1 << 14)


def _gigapath(n: int) -> Case:
    pattern = DilationPattern.preset("gigapath", exact=True)
    return Case(f"gigapath-{n}", pattern, n, 16, 48, torch.float16, dense=True)


CASES: tuple[Case, ...] = (
    *(_ladder(n, d) for n in (1 << 14, 1 << 17, 1 << 20) for d in (128, 64)),
    replace(_ladder(1 << 17, 128), name="ladder-128k-d128-causal", is_causal=True),
    Case("paper-32k", DilationPattern.preset("longnet-paper"), 1 << 15, 12, 64),
    *(_gigapath(n) for n in (10_001, 45_681, 70_001)),
    Case("ladder-16M-d64", _LADDER, 1 << 24, 8, 64, backward=False),
)
