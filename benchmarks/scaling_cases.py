"""What `benchmarks.scaling` runs: weak and strong scaling of the ladder, and one dense branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.bench.cases import Case
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.schedule.balance import BALANCE_LIMIT, excess, pairs_by_rank

KINDS: Final = ("weak", "strong", "dense")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the cases are.

    Args:
        rows: of a rank in weak scaling.
        strong: n of strong scaling.
        dense: n of the dense branch.
        first: segment length of the ladder's first branch.
        heads: H.
        head_dim: d.
        dtype: of query, key and value.
    """

    rows: int
    strong: int
    dense: int
    first: int
    heads: int
    head_dim: int
    dtype: torch.dtype


FULL: Final = Sizes(1 << 17, 1 << 20, 1 << 16, 2048, 16, 128, torch.bfloat16)
SMALL: Final = Sizes(256, 2048, 512, 64, 4, 16, torch.float32)


@dataclass(frozen=True, slots=True)
class Scaled:
    """One case on one ring."""

    case: Case
    kind: str
    ring_size: int
    order: str


def ladder(n: int, first: int) -> DilationPattern:
    """(first, 1), (2 first, 2), ... up to the branch that spans the sequence."""
    segments = [first]
    while segments[-1] < n:
        segments.append(min(2 * segments[-1], n))
    return DilationPattern.longnet(segments, [1 << i for i in range(len(segments))])


def scaled(kind: str, ring_size: int, sizes: Sizes, *, is_causal: bool) -> Scaled:
    """A case on a ring; causal rows lie in zigzag where contiguous ones would be unbalanced."""
    n = {"weak": sizes.rows * ring_size, "strong": sizes.strong, "dense": sizes.dense}[kind]
    pattern = DilationPattern.longnet([n], [1]) if kind == "dense" else ladder(n, sizes.first)
    case = Case(
        name=f"{kind}{'-causal' if is_causal else ''}-R{ring_size}",
        group="scaling",
        pattern=pattern,
        n=n,
        heads=sizes.heads,
        head_dim=sizes.head_dim,
        dtype=sizes.dtype,
        is_causal=is_causal,
    )
    pairs = pairs_by_rank(case.problem, make_layout(n, ring_size))
    order = "zigzag" if excess(pairs) > BALANCE_LIMIT else "contiguous"
    return Scaled(case, kind, ring_size, order)


def suite(ring_sizes: list[int], sizes: Sizes, kinds: list[str]) -> list[Scaled]:
    """All cases; the dense branch is causal, as PyTorch balances only that."""
    return [
        scaled(kind, ring_size, sizes, is_causal=is_causal)
        for kind in kinds
        for is_causal in ((True,) if kind == "dense" else (False, True))
        for ring_size in ring_sizes
    ]
