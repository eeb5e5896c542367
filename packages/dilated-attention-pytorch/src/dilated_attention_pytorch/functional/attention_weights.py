"""The softmax itself, for chosen query rows: which keys they look at, how much, in which branch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..pattern import DilationPattern, as_ints
from ..typing import IntArray
from . import validation
from .call import autocast


@dataclass(frozen=True, slots=True, eq=False)
class AttentionWeights:
    """What the chosen rows see, one entry for each (branch, row, head, key) that exists.

        out[:, rows[i], h] = sum of weight[:, e] * value[:, key[e]] over entries e of (i, h)
        weight[:, e] = exp(scale <q, k> - lse)

    A key that two branches share has two entries; `dense` adds them. The weights of a (row, head)
    add up to 1, or with torchscale's phantom keys to 1 less what those take.

    Args:
        rows: (m,) int64, the chosen positions.
        branch: (entries,) int64.
        row: (entries,) int64, index into `rows`.
        head: (entries,) int64, query head.
        key: (entries,) int64, global position of the key.
        weight: (b, entries), float32, or float64 for float64 inputs; 0 for masked keys.
        share: (b, m, H, branches): alpha of LongNet's mix (arXiv 2307.02486, Eq. 10), the share
            of a branch in the softmax denominator, phantom keys included; 0 where lse is -inf.
        lse: (b, m, H).
        length: n.
    """

    rows: Tensor
    branch: Tensor
    row: Tensor
    head: Tensor
    key: Tensor
    weight: Tensor
    share: Tensor
    lse: Tensor
    length: int

    def dense(self) -> Tensor:
        """(b, m, H, n): P with multiplicities, 0 for keys that a row does not see."""
        b, m, heads, _ = self.share.shape
        flat = self.weight.new_zeros(b, m * heads * self.length)
        at = (self.row * heads + self.head) * self.length + self.key
        return flat.index_add(1, at, self.weight).view(b, m, heads, self.length)

    def multiplicity(self) -> Tensor:
        """(m, H, n) int64: in how many branches a row sees a key, masks apart."""
        _, m, heads, _ = self.share.shape
        at = (self.row * heads + self.head) * self.length + self.key
        return torch.bincount(at, minlength=m * heads * self.length).view(m, heads, self.length)

    def per_key(self) -> Tensor:
        """(b, m, n): the mean of `dense` over the heads, without making it."""
        b, m, heads, _ = self.share.shape
        flat = self.weight.new_zeros(b, m * self.length)
        mean = flat.index_add(1, self.row * self.length + self.key, self.weight) / heads
        return mean.view(b, m, self.length)


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one branch and head offset that see the keys of one segment."""

    branch: int
    heads: IntArray
    row: IntArray
    source: IntArray
    key: IntArray
    seen: IntArray
    phantoms: IntArray


def attention_weights(
    query: Tensor,
    key: Tensor,
    pattern: DilationPattern,
    rows: Tensor | Sequence[int],
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
) -> AttentionWeights:
    """Exact attention of chosen rows of `(b, n, h, d)` tensors; from SDPA use `.transpose(1, 2)`.

        P[p, k] = C[p, k] exp(scale <q[p], k[k]> - lse[p])        p in rows

    the weights with which `dilated_attention` sums the values, branch by branch. Time and memory
    are O(rows * keys that they see), not O(n^2). Differentiable. torchscale's switches are served:
    with `shift_rows` a row's query is, as there, that of another position.

    Args:
        query: (b, n, H, d).
        key: (b, n, H_kv, d).
        pattern: branches and offset rule.
        rows: (m,) query positions in [0, n), in any order; repeats are allowed.
        is_causal: as in `dilated_attention`, as are the others.
        scale: softmax scale, 1/sqrt(d) where None.
        key_mask: (b, n) bool, True = attend.
        cu_seqlens: (docs + 1,) bounds of packed documents, b = 1.

    Returns:
        The entries of P, the branches' shares and lse.

    Raises:
        ValueError: wrong shape or value.
        TypeError: wrong dtype or kind.

    Example:
        >>> import torch
        >>> pattern = DilationPattern.longnet([16, 64], [1, 4])
        >>> q = k = torch.ones(1, 64, 4, 8)
        >>> attention_weights(q, k, pattern, [0]).dense().sum(-1)
        tensor([[[1., 1., 1., 1.]]])
    """
    query, key, _ = autocast(query, key, key)
    validation.check_tensors(query, key, key)
    validation.check_same_length(query, key)
    validation.check_pattern(pattern, query.shape[2])
    validation.check_key_mask(key_mask, key)
    validation.check_flag("is_causal", is_causal)
    factor = validation.check_numbers(scale, 0.0, query.shape[3])
    b, n, heads, _ = query.shape
    chosen = _check_rows(rows, n)
    bounds = validation.check_cu_seqlens(cu_seqlens, n, b)
    validation.check_switches(pattern, key_mask, bounds, 0.0)
    groups = list(_groups(pattern, heads, n, chosen, bounds or (0, n), is_causal))
    return _softmax(query, key, key_mask, groups, chosen, factor, pattern)


def _check_rows(rows: Tensor | Sequence[int], n: int) -> IntArray:
    if isinstance(rows, Tensor):
        if rows.dim() != 1 or rows.dtype.is_floating_point or rows.dtype == torch.bool:
            raise TypeError(
                f"rows must be a 1-d tensor of int64, got {rows.dim()}-d {rows.dtype}; for a bool "
                "mask pass mask.nonzero()[:, 0]"
            )
        rows = rows.tolist()
    chosen = np.array(as_ints("rows", rows), dtype=np.int64)
    if chosen.size == 0:
        raise ValueError("rows must hold at least one position, got none")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(
            f"rows must lie in [0, {n}), got {chosen.min()}..{chosen.max()}; count from 0"
        )
    return chosen


def _groups(
    pattern: DilationPattern,
    num_heads: int,
    n: int,
    rows: IntArray,
    bounds: tuple[int, ...],
    is_causal: bool,
) -> Iterator[_Group]:
    edges = np.array(bounds, dtype=np.int64)
    document = np.searchsorted(edges, rows, side="right") - 1
    for i, (branch, offsets) in enumerate(
        zip(pattern.branches, pattern.offsets(num_heads), strict=True)
    ):
        w, r = branch.segment_length, branch.dilation_rate
        # torchscale pads its segments; where it has none to pad, w' = min(w, n) changes nothing.
        width = min(w, n) if pattern.phantom_keys else w
        places = -(-width // r)
        stride = places * r if pattern.shift_rows and width < n else width
        segment, place = np.divmod(rows - edges[document], stride)
        for offset in sorted({o for o in offsets if o is not None}):
            heads = np.array([h for h, o in enumerate(offsets) if o == offset], dtype=np.int64)
            picked = np.flatnonzero(place % r == offset)
            pairs = np.stack([document[picked], segment[picked]], axis=1)
            for at in _alike(pairs):
                members = picked[at]
                begin = int(edges[document[members[0]]] + segment[members[0]] * width)
                end = min(begin + width, int(edges[document[members[0]] + 1]))
                key = np.arange(begin + offset, end, r, dtype=np.int64)
                own = place[members]
                source = np.where((own < width) & (begin + own < n), begin + own, -1)
                visible = own // r + 1 if is_causal else np.full(len(members), places)
                seen = np.minimum(visible, len(key))
                phantoms = visible - seen if pattern.phantom_keys else np.zeros_like(seen)
                yield _Group(i, heads, members, source, key, seen, phantoms)


def _alike(pairs: IntArray) -> list[IntArray]:
    """Indices of equal rows of `pairs`, together."""
    if not len(pairs):
        return []
    _, kind = np.unique(pairs, axis=0, return_inverse=True)
    order = np.argsort(kind.reshape(-1), kind="stable")
    cuts = np.flatnonzero(np.diff(kind.reshape(-1)[order])) + 1
    return list(np.split(order, cuts))


def _softmax(
    query: Tensor,
    key: Tensor,
    key_mask: Tensor | None,
    groups: Sequence[_Group],
    rows: IntArray,
    scale: float,
    pattern: DilationPattern,
) -> AttentionWeights:
    b, n, heads, _ = query.shape
    device = query.device
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    per_key_head = heads // key.shape[2]
    lses = [
        torch.full((b, len(rows), heads), -torch.inf, dtype=dtype, device=device)
        for _ in pattern.branches
    ]
    scores, indices = [], []
    for group in groups:
        source = torch.from_numpy(np.maximum(group.source, 0)).to(device)
        real = torch.from_numpy(group.source >= 0).to(device)
        at_head, at_key = (torch.from_numpy(x).to(device) for x in (group.heads, group.key))
        q = query[:, source][:, :, at_head].to(dtype) * scale
        q = torch.where(real[None, :, None, None], q, 0.0)
        k = key[:, at_key][:, :, at_head // per_key_head].to(dtype)
        count = torch.from_numpy(group.seen).to(device)
        visible = torch.arange(len(group.key), device=device) < count[:, None]
        allowed = visible[None, :, None, :]
        if key_mask is not None:
            attended = key_mask[:, at_key]
            k = torch.where(attended[:, :, None, None], k, 0.0)
            allowed = allowed & attended[:, None, None, :]
        score = torch.einsum("bmhd,bkhd->bmhk", q, k).masked_fill(~allowed, -torch.inf)
        phantom = torch.from_numpy(group.phantoms).to(device, dtype).log()[None, :, None, None]
        whole = torch.cat([score, phantom.expand(b, -1, len(group.heads), 1)], dim=-1)
        lse = _logsumexp(whole)
        if pattern.phantom_keys:
            # torchscale marks rows that a branch does not cover by lse = 0.
            lse = lse.masked_fill(lse == 0, -torch.inf)
            score = score.masked_fill((lse == -torch.inf)[..., None], -torch.inf)
        row = torch.from_numpy(group.row).to(device)
        lses[group.branch][:, row[:, None], at_head] = lse
        at = visible[:, None, :].expand(-1, len(group.heads), -1).nonzero()
        scores.append(score[:, at[:, 0], at[:, 1], at[:, 2]])
        branch = torch.full_like(at[:, 0], group.branch)
        indices.append(torch.stack([branch, row[at[:, 0]], at_head[at[:, 1]], at_key[at[:, 2]]]))
    per_branch = torch.stack(lses, dim=-1)
    lse = _logsumexp(per_branch)
    floor = torch.where(lse == -torch.inf, 0.0, lse)
    share = torch.exp(per_branch - floor[..., None])
    if indices:
        branch, row, head, seen = torch.cat(indices, dim=1)
        weight = torch.exp(torch.cat(scores, dim=1) - floor[:, row, head])
    else:
        branch = row = head = seen = torch.empty(0, dtype=torch.int64, device=device)
        weight = torch.empty((b, 0), dtype=dtype, device=device)
    chosen = torch.from_numpy(rows).to(device)
    return AttentionWeights(chosen, branch, row, head, seen, weight, share, lse, n)


def _logsumexp(scores: Tensor) -> Tensor:
    """Over the last dimension; -inf, with no gradient, where there is nothing."""
    empty = (scores == -torch.inf).all(-1)
    safe = scores.masked_fill(empty[..., None], 0.0)
    return safe.logsumexp(-1).masked_fill(empty, -torch.inf)
