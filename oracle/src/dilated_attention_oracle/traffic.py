"""The closed form of what has to travel between ranks: counted pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dilated_attention_oracle.counts import branch_counts
from dilated_attention_oracle.inputs import IntArray, prepare
from dilated_attention_oracle.pattern import Pattern
from dilated_attention_oracle.ring import check_shards


def rows_needed(
    pattern: Pattern,
    shards: Sequence[npt.ArrayLike],
    *,
    num_heads: int,
    num_kv_heads: int,
    is_causal: bool = False,
    cu_seqlens: npt.ArrayLike | None = None,
) -> IntArray:
    """How many key/value rows each rank needs from each other rank in the forward pass.

    A row, that is k and v of one position and one key/value head, goes from its owner to another
    rank iff some query there may see it in some branch; it goes once, however many branches or
    query heads share it. Key masks are data and do not count; a batch multiplies the bytes only.

    Args:
        pattern: The dilation pattern.
        shards: For each rank the global positions of its rows.
        num_heads: Number of query heads H.
        num_kv_heads: Number of key/value heads, divides H.
        is_causal: As in `dilated_attention_oracle.forward`.
        cu_seqlens: As in `dilated_attention_oracle.forward`.

    Returns:
        ``(R, R)`` int64: ``[receiver, sender]``, 0 on the diagonal.

    Raises:
        ValueError: As `dilated_attention_oracle.forward`, and for shards that are no partition.
    """
    n = sum(np.asarray(shard).size for shard in shards)
    owned = check_shards(shards, n)
    q, k = np.zeros((1, n, num_heads, 1)), np.zeros((1, n, num_kv_heads, 1))
    inputs = prepare(q, k, k, pattern, is_causal=is_causal, cu_seqlens=cu_seqlens)
    seen = np.logical_or.reduce(branch_counts(inputs)[:, 0], axis=0)
    grouped = seen.reshape(num_kv_heads, num_heads // num_kv_heads, n, n)
    by_key_head = np.logical_or.reduce(grouped, axis=1)
    needed = np.zeros((len(owned), len(owned)), dtype=np.int64)
    for receiver, queries in enumerate(owned):
        wanted = np.logical_or.reduce(by_key_head[:, queries], axis=1)
        for sender, keys in enumerate(owned):
            if sender != receiver:
                needed[receiver, sender] = wanted[:, keys].sum()
    return needed
