"""Who may notice a row: keys, queries and gradients of NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dilated_attention_oracle import Result
from dilated_attention_oracle.strategies import Case

from .definition import Question
from .ring_calls import Ring, run


def seen_matrix(case: Case) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(b, H, n, n): whether the query sees the key."""
    bounds = None if case.cu_seqlens is None else tuple(case.cu_seqlens.tolist())
    question = Question(
        case.pattern, case.length, case.num_heads, case.key.shape[2], case.is_causal, bounds
    )
    seen = np.zeros((case.query.shape[0], case.num_heads, case.length, case.length), np.bool_)
    for _, head, query, key in question.pairs():
        seen[:, head, query, key] = True
    if case.key_mask is not None:
        seen &= case.key_mask[:, None, None, :]
    return seen


def contains_keys(case: Case, ring: Ring, token: int, rubbish: float) -> Result:
    """A key and value of NaN or inf: only queries that see them, and what these see, may notice."""
    poisoned = {name: getattr(case, name).copy() for name in ("key", "value")}
    for rows in poisoned.values():
        rows[:, token] = rubbish
    clean, dirty = run(case, ring), run(replace(case, **poisoned), ring)
    seen = seen_matrix(case)
    notices = seen[..., token]
    group = case.num_heads // case.key.shape[2]
    for b, h, p in np.argwhere(~notices):
        for name in ("out", "lse", "dq"):
            same = getattr(clean, name)[b, p, h], getattr(dirty, name)[b, p, h]
            assert np.array_equal(*same), (name, b, h, p)
    touched = np.zeros((*case.key.shape[:2], case.key.shape[2]), np.bool_)
    for b, h, p in np.argwhere(notices):
        touched[b, :, h // group] |= seen[b, h, p]
    for name in ("dk", "dv"):
        same_rows = getattr(clean, name)[~touched], getattr(dirty, name)[~touched]
        assert np.array_equal(*same_rows), name
    return dirty


def contains_queries(case: Case, ring: Ring, token: int, rubbish: float) -> None:
    """A query and its gradients of NaN or inf: only its own row and the keys it sees notice."""
    poisoned = {name: getattr(case, name).copy() for name in ("query", "dout", "dlse")}
    for rows in poisoned.values():
        rows[:, token] = rubbish
    clean, dirty = run(case, ring), run(replace(case, **poisoned), ring)
    others = np.arange(case.length) != token
    for name in ("out", "lse", "dq"):
        same = getattr(clean, name)[:, others], getattr(dirty, name)[:, others]
        assert np.array_equal(*same), name
    seen = seen_matrix(case)[:, :, token]
    group = case.num_heads // case.key.shape[2]
    touched = np.zeros(case.key.shape[:3], np.bool_)
    for b, h, k in np.argwhere(seen):
        touched[b, k, h // group] = True
    for name in ("dk", "dv"):
        rows = getattr(clean, name)[~touched], getattr(dirty, name)[~touched]
        assert np.array_equal(*rows), name
