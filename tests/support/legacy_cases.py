"""How to make and call each historical object, at its smallest, for tests that iterate them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

import dilated_attention_compat as compat

CORE, WIDE = (1, 8, 2, 4), (1, 8, 8)
BLOCKS = {"block_size": 4}


@dataclass(frozen=True)
class Case:
    """Arguments of one constructor or function, and the shape that its forward takes.

    Attributes:
        args: Positional arguments.
        options: Keyword arguments.
        shape: Of query, key and value; None where there is no forward.
        warns: Whether making one is deprecated.
    """

    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    shape: tuple[int, ...] | None = None
    warns: bool = True


ON_THE_CPU = {"device": "cpu"}
CASES: dict[str, Case] = {
    "RingDilatedAttention": Case(([8], [1]), shape=CORE),
    "UnfoldRingDilatedAttention": Case(([8], [1]), shape=CORE),
    "OptimizedUnfoldRingDilatedAttention": Case(([8], [1]), shape=CORE),
    "ring_dilated_attention_unfold.UnfoldRingDilatedAttention": Case(([8], [2]), shape=CORE),
    "DistributedImprovedDilatedAttention": Case(([8], [1]), shape=CORE),
    "ImprovedDilatedAttention": Case(([8], [1]), shape=CORE, warns=False),
    "RingAttentionCorrect": Case(shape=CORE),
    "BlockSparseRingDilatedAttention": Case(([8], [1], BLOCKS), shape=CORE),
    "RingMultiheadDilatedAttention": Case((8, 2, [8], [1]), ON_THE_CPU, shape=WIDE),
    "ImprovedMultiheadDilatedAttention": Case(
        (8, 2, [1], [8]), ON_THE_CPU, shape=WIDE, warns=False
    ),
    "BlockSparseRingMultiheadDilatedAttention": Case(
        (8, 2, [8], [1]), {"sparse_config": BLOCKS}, shape=WIDE
    ),
    "create_block_sparse_attention": Case(
        options={"embed_dim": 8, "num_heads": 2, **BLOCKS}, shape=WIDE
    ),
    "create_adaptive_sparse_attention": Case(options={"embed_dim": 8, "num_heads": 2, **BLOCKS}),
    "RingDistributedDilatedAttention": Case((8, 2, [8], [1])),
    "DistributedImprovedMultiheadDilatedAttention": Case((8, 2, [8], [1])),
    "BlockSparseRingDistributedDilatedAttention": Case(([8], [1])),
    "SparsePatternConfig": Case(),
    "PatternConfig": Case(),
    "DistributedSparseConfig": Case(),
    "DilatedAttentionConfig": Case(([8], [1])),
    "MultiheadConfig": Case((8, 2)),
    "RingAttentionConfig": Case(([8], [1])),
    "SparseAttentionConfig": Case(([8], [1])),
    "DistributedConfig": Case(),
    "MemoryPoolConfig": Case(),
    "PatternType": Case(("dilated_sparse",), warns=False),
    "DistributedSparsePattern": Case(("hierarchical",), warns=False),
}
FUNCTIONS = ("create_block_sparse_attention", "create_adaptive_sparse_attention")
"""Historical names that are functions: nobody subclasses them, and they return what they made."""


def historical(name: str) -> Any:
    """Return the historical class or function of a record."""
    return compat.load(compat.require(name))


def never_constructed() -> list[str]:
    """Return the names whose constructor always raises."""
    return [r.name for r in compat.RECORDS if r.historical and r.ran is compat.Ran.NOTHING]


def constructed() -> list[str]:
    """Return the names of which an object can be made."""
    return [name for name in CASES if name not in never_constructed()]


def with_forward() -> list[str]:
    """Return the names of which a made object computes something."""
    return [name for name, case in CASES.items() if case.shape is not None]


def make(name: str) -> Any:
    """Make one; the caller deals with the warning."""
    case = CASES[name]
    return historical(name)(*case.args, **case.options)


def quiet(name: str) -> Any:
    """Make one without the deprecation warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        return make(name)


def forward(module: Any, name: str, **options: Any) -> torch.Tensor:
    """Call a made object on ones; return its first output."""
    shape = CASES[name].shape
    assert shape is not None
    x = torch.ones(shape)
    out = module(x, x, x, **options)
    first: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return first
