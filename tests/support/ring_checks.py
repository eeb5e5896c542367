"""Rings against one device, and simulated ranks against their own shard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dilated_attention_oracle.precision import lse_dtype
from dilated_attention_oracle.strategies import Case
from dilated_attention_oracle.tolerance import measure
from dilated_attention_pytorch.ring import autograd
from dilated_attention_pytorch.ring.autograd import RingCall
from dilated_attention_pytorch.ring.shard import Shard

from .ring_calls import (
    ARRAYS,
    ONE_DEVICE,
    Ring,
    attend,
    equals_oracle,
    expected,
    run,
)
from .ring_calls import tensors as inputs_of


def equals_one_device(case: Case, ring: Ring) -> None:
    """Each may be off the oracle by its budget, so they are at most two budgets apart."""
    want, plain = expected(case)
    assert want.terms is not None
    one, many = run(case, ONE_DEVICE), run(case, ring)
    seen = ~np.isneginf(want.lse)
    assert np.array_equal(np.isneginf(one.lse), np.isneginf(many.lse))
    for name in ARRAYS:
        found, wanted, oracle, naive, terms = (
            getattr(x, name)[seen] if name == "lse" else getattr(x, name)
            for x in (many, one, want, plain, want.terms)
        )
        dtype = lse_dtype(case.dtype) if name == "lse" else case.dtype
        budget = measure(name, oracle, oracle, naive, dtype, terms)
        error = np.abs(found - wanted)
        assert error.max(initial=0.0) <= 2 * budget.budget_max, name
        assert error.sum() <= 2 * budget.budget_mean * error.size, name


def bits_equal_one_device(case: Case, ring: Ring) -> None:
    """`deterministic=True`: out and lse in every bit, for every contiguous split."""
    inputs = inputs_of(case)
    one = replace(ONE_DEVICE, deterministic=True, block=ring.block)
    for found, wanted in zip(attend(case, ring, *inputs), attend(case, one, *inputs), strict=True):
        assert found.dtype == wanted.dtype
        assert torch.equal(_bits(found), _bits(wanted))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def owns_its_shard_only(case: Case, ring: Ring) -> None:
    """Before a simulated rank gets its rows, all rows that are not its own become NaN.

    What it gets must be a copy without room for other rows, and the result still the oracle's.
    """
    original = autograd._given
    seen: list[int] = []

    def given_poisoned(
        call: RingCall, query: Tensor, key: Tensor, value: Tensor, rank: int
    ) -> Shard:
        own = torch.zeros(query.shape[1], dtype=torch.bool)
        own[torch.from_numpy(call.layout.positions(rank).copy())] = True
        hidden = ~own[None, :, None, None]
        key, value = (x.masked_fill(hidden, torch.nan) for x in (key, value))
        if not call.replicated:
            query = query.masked_fill(hidden, torch.nan)
        shard = original(call, query, key, value, rank)
        rows = len(call.layout.positions(rank))
        parts = (
            (shard.key, shard.value)
            if call.replicated
            else (
                shard.query,
                shard.key,
                shard.value,
            )
        )
        for part in parts:
            assert part.shape[1] == rows
            assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
            assert not part.isnan().any()
        seen.append(rank)
        return shard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autograd, "_given", given_poisoned)
        equals_oracle(case, ring)
    assert sorted(seen) == sorted(2 * list(range(ring.size)))
