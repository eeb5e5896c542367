"""Dropout masks come from the seed and global indices alone: equal for every ring and blocking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.philox import dropout_factor as oracle_factor
from dilated_attention_oracle.philox import keep_mask
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch import DilationPattern, dilated_attention, ring_dilated_attention
from dilated_attention_pytorch.kernels.philox import dropout_factor
from support.dropout_checks import draws_afresh, follows_its_seed, masks_equal_philox
from support.ring_calls import (
    ONE_DEVICE,
    Ring,
    even_ring,
    fixed_case,
)
from support.ring_strategies import EXACT, examples, ring_cases, rings

BOTH = ("sharded", "replicated")


@st.composite
def dropping(draw: st.DrawFn) -> tuple[Case, Ring]:
    n = draw(st.integers(1, 12))
    pattern = Pattern(((draw(st.integers(1, n + 2)), draw(st.integers(1, 3))), (n, 1)))
    case = fixed_case(n, pattern, heads=2, kv_heads=2, is_causal=draw(st.booleans()))
    p, seed = draw(st.sampled_from([0.25, 0.5, 0.9])), draw(st.integers(-(2**63), 2**63 - 1))
    return replace(case, dropout_p=p, seed=seed), draw(rings(n, layouts=BOTH))


@examples(0.5)
@given(drawn=dropping())
def test_masks_equal_the_oracles_philox(drawn: tuple[Case, Ring]) -> None:
    masks_equal_philox(*drawn)


@examples()
@given(
    drawn=ring_cases(
        features=[name for name in EXACT if name != "documents"],
        dtypes=("float64",),
        layouts=BOTH,
        max_length=16,
    ),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_every_seed_has_its_own_masks_on_every_ring(drawn: tuple[Case, Ring], seed: int) -> None:
    """Forward and gradients of two steps with two seeds."""
    follows_its_seed(*drawn, seed)


@pytest.mark.parametrize("branch", [0, 3])
@pytest.mark.parametrize("start", [0, 2**32 - 2, 2**40 + 7])
@pytest.mark.parametrize("first", [0, 5, 4 * 2**20 + 3])
def test_factor_equals_the_oracle_at_large_indices(start: int, first: int, branch: int) -> None:
    """Positions beyond 2^32 reach the counter's last word; sparse and unaligned key numbers."""
    positions, key_x = start + np.arange(5), first + np.array([0, 1, 2, 5, 9])
    heads, seed, p = np.array([1, 4]), -(2**62) + 12345, 0.37
    found = dropout_factor(
        seed=torch.tensor(seed),
        dropout_p=p,
        batch=2,
        num_heads=6,
        heads=torch.tensor(heads),
        branch=branch,
        positions=torch.tensor(positions),
        key_x=key_x,
        dtype=torch.float64,
    )
    sequence = np.arange(2)[:, None] * 6 + heads
    want = oracle_factor(positions[:, None], key_x, sequence[:, :, None, None], branch, p, seed)
    assert np.array_equal(found.numpy(), want)


def test_factor_of_keys_far_apart_stays_small() -> None:
    """A zigzag shard meets the two ends of a segment in one tile: no numbers in between."""
    key_x = np.array([0, 1, 2**34, 2**34 + 1])
    found = dropout_factor(
        seed=torch.tensor(3),
        dropout_p=0.5,
        batch=1,
        num_heads=1,
        heads=torch.tensor([0]),
        branch=0,
        positions=torch.tensor([0]),
        key_x=key_x,
        dtype=torch.float64,
    )
    want = keep_mask(0, key_x, 0, 0, 0.5, 3)
    assert np.array_equal(found[0, 0, 0].numpy() > 0, want)


@pytest.mark.parametrize("ring", [ONE_DEVICE, even_ring(16, 2), even_ring(16, 3)])
def test_no_seed_draws_a_new_one_each_step(ring: Ring) -> None:
    draws_afresh(ring)


@pytest.mark.parametrize("ring", [ONE_DEVICE, even_ring(16, 2)])
def test_without_dropout_no_random_number_is_drawn(ring: Ring) -> None:
    x = torch.ones(1, 16, 2, 4)
    pattern = DilationPattern.longnet([16], [1])
    before = torch.get_rng_state()
    if ring is ONE_DEVICE:
        dilated_attention(x, x, x, pattern)
    else:
        ring_dilated_attention(x, x, x, pattern, **ring.options)
    assert torch.equal(torch.get_rng_state(), before)
