"""An order of the rows that gives every rank of a ring about the same work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layout import Layout
from ..pattern import DilationPattern
from ..schedule.balance import BALANCE_LIMIT, balanced_map, excess, pairs_by_rank
from ..schedule.problem import Problem
from . import validation


def balanced_order(
    pattern: DilationPattern,
    n: int,
    *,
    num_heads: int,
    ring_size: int,
    is_causal: bool = True,
    cu_seqlens: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """An index map, int64 (n,), with which the ranks of a ring score about equally many pairs.

    Pass it as `order` to `shard`, `positions`, `unshard` and `ring_dilated_attention`. Contiguous
    where that is balanced; else chunks of the sequence are dealt by how many (query, key, head,
    branch) pairs their rows score, which depends on causality, segments and documents. Where every
    segment length divides n, `zigzag` balances as well; this order also serves those that do not,
    and packed documents.

    Invariant: the default's row counts; the busiest rank is at most 5 % over the mean where chunks
    of some size reach that, else as close as chunks get.

    Args:
        pattern: branches and offset rule.
        n: global sequence length.
        num_heads: query heads H.
        ring_size: number of ranks R.
        is_causal: as in the call.
        cu_seqlens: as in the call.

    Returns:
        On the CPU: entry i is the global position of row i of the concatenated shards.

    Raises:
        ValueError: a value that the call would refuse.
        TypeError: a kind that the call would refuse.

    Example:
        >>> pattern = DilationPattern.longnet([8], [1])
        >>> balanced_order(pattern, 8, num_heads=1, ring_size=2).tolist()
        [0, 1, 6, 7, 2, 3, 4, 5]
    """
    validation.check_pattern(pattern, num_heads)
    validation.check_flag("is_causal", is_causal)
    for name, number, least in (("n", n, 0), ("ring_size", ring_size, 1)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} must be an int, got {number!r}")
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    bounds = validation.check_cu_seqlens(cu_seqlens, n, batch=1)
    problem = Problem(pattern, n, num_heads, num_heads, is_causal, bounds)
    return torch.from_numpy(balanced_map(problem, ring_size)[0])


def balance_line(problem: Problem, layout: Layout) -> str:
    """How the pairs are spread over the ranks, and what would spread them better."""
    found = excess(pairs_by_rank(problem, layout))
    line = f"balance    busiest rank scores {found:.1%} more pairs than the mean"
    if found <= BALANCE_LIMIT:
        return line
    _, better = balanced_map(problem, layout.ring_size)
    return f"{line}; with order=balanced_order(…) {better:.1%}"
