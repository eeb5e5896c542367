"""Every public function equals the oracle, forward and gradients, whatever is drawn.

The summary at the end of the run says how close, for each dtype and ring size.
"""

from __future__ import annotations

import pytest

from dilated_attention_oracle.precision import DTYPES
from support.ring_calls import equals_oracle
from support.ring_strategies import device_cases, holds, ring_cases

SIZES = range(1, 9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_device(dtype: str) -> None:
    holds(equals_oracle, device_cases(dtypes=(dtype,), max_length=32), 0.8, "one device", dtype)


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
