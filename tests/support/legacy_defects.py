"""What the historical classes computed, stated in NumPy, and what would have been right.

Independent of the packages: loops over positions and heads in float64, gradients by hand. The
`naive_*` functions state the same in one pass of plain PyTorch, for the tolerance's budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Met = npt.NDArray[np.bool_]
Attend = Callable[..., Any]


def head_groups(num_heads: int, groups: int, *, larger_last: bool = False) -> list[range]:
    """Return the heads of each group: as even as possible, the larger ones first or last."""
    sizes = [num_heads // groups + (i < num_heads % groups) for i in range(groups)]
    if larger_last:
        sizes.reverse()
    return [range(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(groups)]


def over_heads(
    q: Array,
    k: Array,
    v: Array,
    causal: bool,
    segments: Sequence[int],
    rates: Sequence[int],
    dout: Array | None = None,
    *,
    larger_last: bool = False,
) -> list[Array]:
    """Softmax over the heads of a group at one position: out, and dq, dk, dv where dout is given.

    A group whose segment is longer than the sequence stays 0.
    """
    b, n, num_heads, d = q.shape
    out, dq, dk, dv = (np.zeros(q.shape) for _ in range(4))
    scale = 1 / len(segments)
    for i, heads in enumerate(head_groups(num_heads, len(segments), larger_last=larger_last)):
        covered = [p for p in range(n) if p % segments[i] % rates[i] == i % rates[i]]
        for c, p, x in ((c, p, x) for c in range(b) for p in covered for x in heads):
            if segments[i] > n:
                continue
            seen = [s for s in heads if s <= x or not causal]
            score = np.exp([q[c, p, x] @ k[c, p, s] / np.sqrt(d) for s in seen])
            weight = score / score.sum()
            out[c, p, x] = weight @ v[c, p, seen] * scale
            if dout is None:
                continue
            g = dout[c, p, x]
            ds = weight * (v[c, p, seen] @ g * scale - g @ out[c, p, x]) / np.sqrt(d)
            dq[c, p, x] += ds @ k[c, p, seen]
            dk[c, p, seen] += np.outer(ds, q[c, p, x])
            dv[c, p, seen] += np.outer(weight, g) * scale
    return [out] if dout is None else [out, dq, dk, dv]


def over_tokens(
    q: Array, k: Array, v: Array, causal: bool, segments: Sequence[int], rates: Sequence[int]
) -> Array:
    """The same pattern and head groups, attending over tokens as was meant."""
    n, num_heads = q.shape[1:3]
    p, t = np.arange(n)[:, None], np.arange(n)[None, :]
    out = np.zeros(q.shape)
    for i, heads in enumerate(head_groups(num_heads, len(segments))):
        w, r = segments[i], rates[i]
        seen = (p % w % r == i % r) & (t % w % r == i % r) & (p // w == t // w)
        here = slice(heads.start, heads.stop)
        group = joint(q[:, :, here], k[:, :, here], v[:, :, here], causal, seen)
        out[:, :, here] = group / len(segments)
    return out


def joint(q: Array, k: Array, v: Array, causal: bool, seen: Met) -> Array:
    """One softmax over all keys that a query sees; 0 where it sees none."""
    n, d = q.shape[1], q.shape[3]
    seen = seen & (np.tri(n, dtype=bool) | (not causal))
    score = np.exp(np.einsum("bphd,bthd->bhpt", q, k) / np.sqrt(d)) * seen
    mass = score.sum(-1, keepdims=True)
    share = np.divide(score, mass, out=np.zeros_like(score), where=mass > 0)
    return np.einsum("bhpt,bthd->bphd", share, v)


def met_blocks(
    kind: str,
    num_blocks: int,
    block_size: int,
    *,
    rates: Sequence[int] = (1, 2, 4),
    window: int = 512,
    first: int = 64,
) -> Met:
    """Which blocks of keys (columns) each block of queries (rows) meets."""
    i, j = np.arange(num_blocks)[:, None], np.arange(num_blocks)[None, :]
    near = np.abs(i - j) <= window // block_size // 2
    if kind == "local_window":
        return near
    if kind == "global_local":
        return near | (j < first // block_size)
    return np.isin(np.abs(i - j), [0, *rates[:3]])


def chunk_sums(
    q: Array,
    k: Array,
    v: Array,
    causal: bool,
    met: Met,
    block_size: int,
    dout: Array | None = None,
) -> list[Array]:
    """A softmax for each chunk of keys, added up: out, and dq, dk, dv where dout is given.

    `met` has a row for each query block and a column for each key block. With `causal` blocks of
    later keys are left out; what a query hides of a block that it does meet is -inf to the softmax.
    """
    d = q.shape[3]
    out, dq, dk, dv = (np.zeros(q.shape) for _ in range(4))
    rows = q.shape[1] // met.shape[0]
    for i, j in np.argwhere(met):
        queries, keys = np.arange(rows) + i * rows, np.arange(block_size) + j * block_size
        here, there = (slice(x[0], x[-1] + 1) for x in (queries, keys))
        hidden = (keys > queries[:, None]) & causal
        if rows == block_size and hidden.all():
            continue
        score = np.einsum("bphd,bthd->bhpt", q[:, here], k[:, there]) / np.sqrt(d)
        score = np.where(hidden, -np.inf, score)
        with np.errstate(invalid="ignore"):
            weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        part = np.einsum("bhpt,bthd->bphd", weight, v[:, there])
        out[:, here] += part
        if dout is None:
            continue
        g = dout[:, here]
        dp = np.einsum("bphd,bthd->bhpt", g, v[:, there])
        delta = np.einsum("bphd,bphd->bhp", g, part)
        ds = weight * (dp - delta[..., None]) / np.sqrt(d)
        dq[:, here] += np.einsum("bhpt,bthd->bphd", ds, k[:, there])
        dk[:, there] += np.einsum("bhpt,bphd->bthd", ds, q[:, here])
        dv[:, there] += np.einsum("bhpt,bphd->bthd", weight, g)
    return [out] if dout is None else [out, dq, dk, dv]


def naive_over_heads(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool,
    segments: Sequence[int],
    rates: Sequence[int],
    *,
    larger_last: bool = False,
) -> torch.Tensor:
    """All heads against all heads, masked."""
    n, num_heads, d = q.shape[1:]
    same = torch.zeros(n, num_heads, num_heads, dtype=torch.bool)
    for i, heads in enumerate(head_groups(num_heads, len(segments), larger_last=larger_last)):
        block = torch.ones(len(heads), len(heads), dtype=torch.bool)
        here = slice(heads.start, heads.stop)
        covered = torch.arange(n) % segments[i] % rates[i] == i % rates[i]
        same[covered, here, here] = block.tril() if causal else block
    score = torch.einsum("bnhd,bnsd->bnhs", q, k) / d**0.5
    weight = score.masked_fill(~same, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bnhs,bnsd->bnhd", weight, v) / len(segments)


def naive_chunk_sums(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool,
    met: Met,
    block_size: int,
) -> torch.Tensor:
    """All queries against every chunk of keys, masked; 0 where a chunk is not met."""
    n, d = q.shape[1], q.shape[3]
    queries = torch.arange(n)
    out = torch.zeros_like(q)
    for j in range(n // block_size):
        keys = slice(j * block_size, (j + 1) * block_size)
        score = torch.einsum("bphd,bthd->bhpt", q, k[:, keys]) / d**0.5
        if causal:
            score = score.masked_fill(queries[keys] > queries[:, None], -torch.inf)
        asked = torch.from_numpy(met[:, j]).repeat_interleave(n // met.shape[0])
        if causal and met.shape[0] == n // block_size:
            asked &= queries >= keys.start
        weight = score.softmax(-1)
        weight = torch.where(asked[:, None], weight, 0.0)
        out = out + torch.einsum("bhpt,bthd->bphd", weight, v[:, keys])
    return out


def in_torch(attend: Attend) -> Attend:
    """Return a NumPy attention as a function of float64 tensors."""
    return lambda q, k, v, causal: torch.tensor(attend(q.numpy(), k.numpy(), v.numpy(), causal))


def layer(
    attend: Attend,
    x: torch.Tensor,
    state: dict[str, torch.Tensor],
    num_heads: int,
    causal: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    """A multihead layer around any attention, spelled out, in any dtype.

    The input projections are fused or separate, the norm is there or not, as the state says.
    """
    s = {key: tensor.to(dtype) for key, tensor in state.items()}
    x = x.to(dtype)
    if "qkv_proj.weight" in s:
        pairs = zip(s["qkv_proj.weight"].chunk(3), s["qkv_proj.bias"].chunk(3), strict=True)
    else:
        pairs = ((s[f"{p}_proj.weight"], s[f"{p}_proj.bias"]) for p in "qkv")
    q, k, v = ((x @ w.T + b).unflatten(2, (num_heads, -1)) for w, b in pairs)
    y: torch.Tensor = attend(q, k, v, causal).reshape(x.shape)
    if "q_ln.weight" in s:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        y = y * s["q_ln.weight"] + s["q_ln.bias"]
    return y @ s["out_proj.weight"].T + s["out_proj.bias"]


def with_gradients(
    attend: Attend, arrays: Sequence[npt.NDArray[Any]], dout: npt.NDArray[Any], causal: bool
) -> list[npt.NDArray[Any]]:
    """Return out, dq, dk, dv of a function of tensors on float32 arrays."""
    q, k, v = (torch.tensor(x).requires_grad_() for x in arrays)
    out = attend(q, k, v, causal)
    torch.autograd.backward(out, torch.tensor(dout))
    grads = (x.grad for x in (q, k, v))
    return [out.detach().numpy(), *(g.numpy() for g in grads if g is not None)]


def relative_error(wrong: Any, right: Any) -> float:
    """|wrong - right| / |right| in the Euclidean norm, to two decimals as records state it."""
    wrong, right = np.asarray(wrong, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return round(float(np.linalg.norm(wrong - right) / np.linalg.norm(right)), 2)
