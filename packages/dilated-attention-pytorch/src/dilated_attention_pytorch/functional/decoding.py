"""The operator for the newest rows of a causal sequence: what generation asks, token by token."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..pattern import DilationPattern
from . import validation
from .call import autocast


def decode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    *,
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The last m rows of causal dilated attention of `(b, n, h, d)` tensors; `(b, m, h, d)`.

        decode_attention(q[:, n - m:], k, v, pattern)
            == dilated_attention(q, k, v, pattern, is_causal=True)[:, n - m:]

    A new row p of head h reads, of each branch that selects it, the rows of its offset from the
    start of its segment up to p and no other: O(sum_i w_i / r_i) rows of a cache of any length.
    A row that sees no key has out 0. Gradients flow, but m rows are done one after the other.

    Args:
        query: (b, m, H, d), m <= n: the newest rows, the last of them at position n - 1.
        key: (b, n, H_kv, d), all rows so far, those of the queries included.
        value: (b, n, H_kv, d).
        pattern: branches and offset rule, without torchscale's switches.
        scale: softmax scale, 1/sqrt(d) where None.
        key_mask: (b, n) bool, True = attend.

    Returns:
        (b, m, H, d) in query's dtype, autocast's where that is on; computed in float32, or float64
        for float64 inputs.

    Raises:
        ValueError: wrong shape or value, more queries than keys, or torchscale's switches, with
            which a row depends on how long the sequence will be.
        TypeError: wrong dtype or kind.
    """
    query, key, value = autocast(query, key, value)
    validation.check_tensors(query, key, value)
    validation.check_pattern(pattern, query.shape[2])
    validation.check_key_mask(key_mask, key)
    used_scale = validation.check_numbers(scale, 0.0, query.shape[3])
    if not pattern.exact:
        raise ValueError(
            "decoding needs the exact operator: with phantom_keys, detach_mix or shift_rows an "
            "output depends on the length that the sequence will have; turn them off, as "
            "DilationPattern.preset(name, exact=True) does"
        )
    n, m = key.shape[1], query.shape[1]
    if m > n:
        raise ValueError(f"key holds the rows of the queries too, got {m} queries and {n} keys")
    rows = [
        _row(query[:, i], key, value, pattern, n - m + i, used_scale, key_mask) for i in range(m)
    ]
    return torch.stack(rows, dim=1) if rows else torch.empty_like(query)


def _row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: DilationPattern,
    position: int,
    scale: float,
    key_mask: Tensor | None,
) -> Tensor:
    """One row's attention, (b, H, d) of a query (b, H, d)."""
    heads = query.shape[1]
    rows, present = _seen_rows(pattern, heads, position, query.device)
    seen = present if key_mask is None else present & key_mask[:, rows]
    groups = torch.arange(heads, device=query.device)[:, None] // (heads // key.shape[2])
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys, values = (x[:, rows, groups].to(wide) for x in (key, value))
    scores = torch.einsum("bhd,bhkd->bhk", query.to(wide) * scale, keys)
    scores = scores.masked_fill(~seen, -torch.inf)
    none = ~seen.any(-1, keepdim=True)
    # A row without keys would be a softmax of -inf alone, which is NaN and has NaN gradients.
    weights = scores.masked_fill(none, 0.0).softmax(-1).masked_fill(none, 0.0)
    values = values.masked_fill(~seen[..., None], 0.0)
    return torch.einsum("bhk,bhkd->bhd", weights, values).to(query.dtype)


@lru_cache(maxsize=8)
def _seen_rows(
    pattern: DilationPattern, num_heads: int, position: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(rows, present), both (H, width): what a row sees in each head, once for every branch.

    Entries that are not present fill up heads that see fewer rows. All layers of a model ask for
    the same rows of one token.
    """
    offsets = pattern.offsets(num_heads)
    seen = []
    for head in range(num_heads):
        parts = [torch.empty(0, dtype=torch.int64, device=device)]
        for branch, of_head in zip(pattern.branches, offsets, strict=True):
            start = position - position % branch.segment_length
            offset, rate = of_head[head], branch.dilation_rate
            if offset is not None and (position - start) % rate == offset:
                parts.append(torch.arange(start + offset, position + 1, rate, device=device))
        seen.append(torch.cat(parts))
    rows = torch.nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_value=-1)
    return rows.clamp(min=0), rows >= 0
