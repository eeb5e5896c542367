"""What the deprecated classes computed in place of attention over tokens: attention over heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def group_sizes(num_heads: int, groups: int) -> list[int]:
    """Return how many heads each group has: as even as possible, the first ones larger."""
    size, larger = divmod(num_heads, groups)
    return [size + (i < larger) for i in range(groups)]


def head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend over the heads of a group at each position: the historical defect, as it was.

    The heads are cut into G = len(segment_lengths) contiguous groups, the first H mod G one head
    larger. Group i covers the positions p with `(p mod w_i) mod r_i = i mod r_i`. For a head x
    of group i at a covered position p, with s over the heads of the same group,

        out[p, x] = (1/G) sum_s softmax_s(<q[p, x], k[p, s]> / sqrt(d)) v[p, s]

    and 0 at the other positions. Only position p enters, so no token sees another. With
    `is_causal`, s <= x: heads are masked, not tokens.

    It came about by handing (b, m, g, d) to `scaled_dot_product_attention`, which reads its
    second last axis as the sequence.

    Args:
        query: (b, n, h, d), any floating dtype; transpose SDPA's (b, h, n, d) with
            `.transpose(1, 2)`.
        key: The same shape.
        value: The same shape.
        segment_lengths: w_i, each a divisor of n.
        dilation_rates: r_i.
        is_causal: Mask later heads of the group.
        dropout_p: Dropout on the weights over heads.

    Returns:
        (b, n, h, d) in the dtype of query.
    """
    _, n, num_heads, _ = query.shape
    groups = len(segment_lengths)
    position = torch.arange(n, device=query.device)
    out = torch.zeros_like(query)
    first = 0
    for i, (size, w, r) in enumerate(
        zip(group_sizes(num_heads, groups), segment_lengths, dilation_rates, strict=True)
    ):
        last = first + size
        covered = position[position % w % r == i % r]
        out[:, covered, first:last] = F.scaled_dot_product_attention(
            query[:, covered, first:last],
            key[:, covered, first:last],
            value[:, covered, first:last],
            dropout_p=dropout_p,
            is_causal=is_causal,
        )
        first = last
    return out / groups
