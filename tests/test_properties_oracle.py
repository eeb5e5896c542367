"""Every public function equals the oracle, forward and gradients, whatever is drawn.

The summary at the end of the run says how close, for each dtype and ring size.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.strategies import Case
from support.ring_calls import Ring, equals_oracle
from support.ring_strategies import device_cases, holds, ring_cases

SIZES = range(1, 9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_device(dtype: str) -> None:
    holds(equals_oracle, device_cases(dtypes=(dtype,), max_length=32), 0.8, "one device", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_device_by_the_backend_of_choice(dtype: str) -> None:
    drawn = device_cases(dtypes=(dtype,), max_length=32)
    holds(_auto_equals_oracle, drawn, 0.8, "one device, auto", dtype)


def _auto_equals_oracle(case: Case, ring: Ring) -> None:
    equals_oracle(case, replace(ring, backend="auto"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sharded_ring(size: int, dtype: str) -> None:
    drawn = ring_cases(dtypes=(dtype,), min_ranks=size, max_ranks=size)
    holds(equals_oracle, drawn, 0.24, "sharded", size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_replicated_ring(size: int, dtype: str) -> None:
    drawn = ring_cases(dtypes=(dtype,), min_ranks=size, max_ranks=size, layouts=("replicated",))
    holds(equals_oracle, drawn, 0.16, "replicated", size, dtype)
