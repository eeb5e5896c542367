"""What the deprecated block-sparse classes computed: one softmax per block, added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Blocks = list[list[int]]
"""For each block of queries, the blocks of keys it meets, in historical order."""


def local_window(num_blocks: int, radius: int) -> Blocks:
    """Return the blocks at most `radius` away."""
    return [
        list(range(max(0, i - radius), min(num_blocks, i + radius + 1))) for i in range(num_blocks)
    ]


def dilated_sparse(num_blocks: int, rates: Sequence[int]) -> Blocks:
    """Return the block itself and those `rate` blocks away on both sides."""
    met = [[i, *(i + sign * r for r in rates for sign in (-1, 1))] for i in range(num_blocks)]
    return [[j for j in dict.fromkeys(columns) if 0 <= j < num_blocks] for columns in met]


def global_local(num_blocks: int, first: int, radius: int) -> Blocks:
    """Return the `first` blocks of the sequence, then the others at most `radius` away."""
    first = min(first, num_blocks)
    near = local_window(num_blocks, radius)
    return [[*range(first), *(j for j in columns if j >= first)] for columns in near]


def up_to_diagonal(blocks: Blocks) -> Blocks:
    """Leave out the blocks of later keys."""
    return [[j for j in columns if j <= i] for i, columns in enumerate(blocks)]


def block_softmax_sum(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    blocks: Blocks,
    block_size: int,
    *,
    is_causal: bool = False,
    collect: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Attend from every block of queries to its blocks of keys, each with a softmax of its own.

    For a query p in block i, with t over the keys of block j and `blocks[i]` the blocks it meets,

        out[p] = sum_j sum_t softmax_t(<q[p], k[t]> / sqrt(d)) v[t]

    where each inner softmax is over one block only: the weights of p sum to the number of its
    blocks. With `is_causal`, t <= p within block i; later blocks must have been left out.

    Args:
        query: (b, n, h, d); transpose SDPA's (b, h, n, d) with `.transpose(1, 2)`.
        key: The same shape.
        value: The same shape.
        blocks: At least one block for each block of queries.
        block_size: A divisor of n.
        is_causal: Mask later keys of the query's own block.
        collect: Called with i, j and the weights (b, h, block_size, block_size) of each pair.

    Returns:
        (b, n, h, d) in the dtype of query.
    """
    q, k, v = (x.unflatten(1, (-1, block_size)) for x in (query, key, value))
    later = torch.ones(block_size, block_size, dtype=torch.bool, device=query.device).triu(1)
    rows = []
    for i, columns in enumerate(blocks):
        score = torch.einsum("bphd,bjthd->bjhpt", q[:, i], k[:, columns]) / query.shape[3] ** 0.5
        if is_causal:
            own = torch.tensor(columns, device=query.device) == i
            score = score.masked_fill(own[:, None, None, None] & later, -torch.inf)
        weight = score.softmax(-1)
        if collect is not None:
            for j, pair in zip(columns, weight.unbind(1), strict=True):
                collect(i, j, pair)
        rows.append(torch.einsum("bjhpt,bjthd->bphd", weight, v[:, columns]))
    return torch.cat(rows, dim=1)
