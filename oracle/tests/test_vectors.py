"""The shipped vectors are what the oracle computes now."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dilated_attention_oracle import round_to
from dilated_attention_oracle.conformance.vectors import (
    INPUTS,
    PATH,
    RESULTS,
    SPECS,
    compute,
    load,
    write,
)
from dilated_attention_oracle.precision import DTYPES
from dilated_attention_oracle.tolerance import check, check_lse


def test_there_are_32_small_ones() -> None:
    assert len(SPECS) == len(load()) == 32
    assert PATH.stat().st_size < 400_000


@pytest.mark.parametrize("number", range(len(SPECS)))
def test_vector_is_current(number: int) -> None:
    stored, fresh = load()[number], compute(number)
    assert json.loads(str(stored["spec"])) == json.loads(str(fresh["spec"]))
    for name in INPUTS:
        assert np.array_equal(stored[name], fresh[name])
        assert all(np.array_equal(round_to(stored[name], t), stored[name]) for t in DTYPES)
    # Another BLAS may sum in another order, hence the float64 budget and not equality.
    ones = np.ones(stored["lse"].shape)
    check_lse(fresh["lse"], stored["lse"], stored["lse"], "float64", ones)
    for name in ("out", "dq", "dk", "dv"):
        sizes = np.ones(stored[name].shape)
        check(name, fresh[name], stored[name], stored[name], "float64", sizes)


def test_writing_gives_the_shipped_file(tmp_path: Path) -> None:
    write(tmp_path / "new" / "vectors.npz")
    for new, old in zip(load(tmp_path / "new" / "vectors.npz"), load(), strict=True):
        assert new.keys() == old.keys()
        assert all(new[name].shape == old[name].shape for name in (*INPUTS, *RESULTS))
