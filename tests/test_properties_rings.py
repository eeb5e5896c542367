"""Ring-size invariance, repeatable bits, and simulated ranks that own their shard and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from dilated_attention_oracle import Pattern
from dilated_attention_oracle.strategies import Case
from support.ring_calls import (
    ARRAYS,
    Ring,
    fixed_case,
    run,
)
from support.ring_checks import bits_equal_one_device, equals_one_device, owns_its_shard_only
from support.ring_strategies import EXACT, examples, holds, ring_cases

SIZES = range(1, 9)
BOTH = ("sharded", "replicated")


@pytest.mark.parametrize("size", SIZES)
def test_ring_size_invariance(size: int) -> None:
    drawn = ring_cases(layouts=BOTH, max_length=16, min_ranks=size, max_ranks=size)
    holds(equals_one_device, drawn, 0.12, "invariance", size)


@pytest.mark.parametrize("size", SIZES)
def test_deterministic_bits_do_not_depend_on_the_ring(size: int) -> None:
    drawn = ring_cases(orders=("contiguous",), deterministic=True, min_ranks=size, max_ranks=size)
    holds(bits_equal_one_device, drawn, 0.2, "bits", size)


@examples(0.5)
@given(drawn=ring_cases(layouts=BOTH, deterministic=True))
def test_deterministic_bits_repeat(drawn: tuple[Case, Ring]) -> None:
    first, second = run(*drawn), run(*drawn)
    for name in ARRAYS:
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True), name


@examples(0.5)
@given(drawn=ring_cases(features=EXACT, layouts=BOTH, max_length=16, min_ranks=2))
def test_a_simulated_rank_owns_its_shard_only(drawn: tuple[Case, Ring]) -> None:
    owns_its_shard_only(*drawn)


@pytest.mark.parametrize("is_causal", [False, True])
def test_deterministic_bits_at_full_tile_size(is_causal: bool) -> None:
    """Tiles of 256 rows, so that vector units and matrix kernels run at their real widths."""
    pattern = Pattern(((300, 1), (613, 2)))
    case = fixed_case(613, pattern, width=24, dtype="float32", is_causal=is_causal)
    for lengths in ((204, 205, 204), (1, 0, 511, 100, 1)):
        bits_equal_one_device(case, Ring(lengths, deterministic=True))
