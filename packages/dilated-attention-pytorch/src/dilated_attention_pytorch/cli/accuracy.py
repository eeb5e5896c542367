"""How far a ring is from the oracle, as a share of what the tolerance formula allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..functional import ring_dilated_attention, shard
from ..pattern import DilationPattern
from .rank import Rank

Array = npt.NDArray[Any]

LENGTH, HEADS, HEAD_DIM = 192, 4, 16
SEGMENT_LENGTHS, DILATION_RATES = (32, 96, 192), (1, 2, 4)
NAMES = ("out", "dq", "dk", "dv")


def case() -> list[Array]:
    """query, key, value and dout of the case, (1, n, h, d) float32."""
    shape = (4, 1, LENGTH, HEADS, HEAD_DIM)
    return list(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def attend(rank: Rank) -> list[Array]:
    """This rank's rows of out, dq, dk, dv."""
    query, key, value, dout = (
        shard(torch.from_numpy(x), group=rank.group).to(rank.device) for x in case()
    )
    inputs = [x.requires_grad_() for x in (query, key, value)]
    pattern = DilationPattern.longnet(SEGMENT_LENGTHS, DILATION_RATES)
    out = ring_dilated_attention(query, key, value, pattern, group=rank.group, is_causal=True)
    gradients = torch.autograd.grad(out, inputs, dout)
    return [x.detach().cpu().numpy() for x in (out, *gradients)]


def budget_shares(ranks: list[list[Array]]) -> dict[str, float]:
    """The error of out and of each gradient, as a share of its tolerance; above 1 is wrong.

    Args:
        ranks: What `attend` returned on each rank.
    """
    from dilated_attention_oracle import Pattern
    from dilated_attention_oracle.adapters.naive import naive
    from dilated_attention_oracle.adapters.numpy_adapter import reference
    from dilated_attention_oracle.tolerance import measure

    query, key, value, dout = case()
    pattern = Pattern(tuple(zip(SEGMENT_LENGTHS, DILATION_RATES, strict=True)))
    exact, plain = (
        judge(query, key, value, pattern, "float32", dout=dout, is_causal=True)
        for judge in (reference, naive)
    )
    assert exact.terms is not None
    shares = {}
    for name, *parts in zip(NAMES, *ranks, strict=True):
        whole = np.concatenate(parts, axis=1)
        expected, simple, terms = (getattr(x, name) for x in (exact, plain, exact.terms))
        shares[name] = measure(name, whole, expected, simple, "float32", terms).share
    return shares
