"""`RingAttentionCorrect` gives its historical numbers; what the records say of V2 is so."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dilated_attention_compat as compat
from dilated_attention_oracle import tolerance
from support.legacy_defects import (
    chunk_sums,
    joint,
    naive_chunk_sums,
    relative_error,
    with_gradients,
)

DATA = Path(__file__).parent / "data"
VECTORS = dict(np.load(DATA / "correct_vectors.npz"))
INPUTS = [VECTORS[f"inputs/correct/{name}"] for name in ("q", "k", "v")]
EXACT = [array.astype(np.float64) for array in INPUTS]
DENSE = np.ones((64, 64), dtype=bool)


@pytest.fixture(autouse=True)
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.filterwarnings("ignore", "RingAttentionCorrect takes", RuntimeWarning)
        yield


def module(*args: Any, **options: Any) -> Any:
    return compat.load(compat.require("RingAttentionCorrect"))(*args, **options)


def all_met(ring_size: int) -> Any:
    return np.ones((1, ring_size), dtype=bool)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("ring_size", [1, 2, 4, 8])
def test_it_equals_the_historical_arrays(ring_size: int, causal: bool) -> None:
    chunk = 64 // ring_size
    reference = chunk_sums(*EXACT, causal, all_met(ring_size), chunk)[0]
    q, k, v = (torch.tensor(array) for array in INPUTS)
    plain = naive_chunk_sums(q, k, v, causal, all_met(ring_size), chunk)
    stored = VECTORS[f"RingAttentionCorrect/ring{ring_size}_{'causal' if causal else 'full'}/out"]
    ours = module()(q, k, v, ring_size, causal).numpy()
    empty = np.isnan(stored)
    assert empty.mean() == (1 - 1 / ring_size if causal else 0)
    np.testing.assert_array_equal(np.isnan(ours), empty)
    np.testing.assert_array_equal(np.isnan(reference), empty)
    for name, array in (("history", stored), ("compat", ours)):
        tolerance.check(
            name, array[~empty], reference[~empty], plain.numpy()[~empty], "float32"
        )  # fmt: skip


@pytest.mark.parametrize("ring_size", [1, 4])
def test_gradients(ring_size: int) -> None:
    dout = INPUTS[0][::-1].copy()
    chunk = 64 // ring_size
    reference = chunk_sums(*EXACT, False, all_met(ring_size), chunk, dout.astype(np.float64))
    naive = functools.partial(naive_chunk_sums, met=all_met(ring_size), block_size=chunk)
    plain = with_gradients(naive, INPUTS, dout, False)
    ours = with_gradients(lambda q, k, v, c: module()(q, k, v, ring_size, c), INPUTS, dout, False)
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        tolerance.check(name, ours[i], reference[i], plain[i], "float32")


def test_the_stated_error_is_the_measured_one() -> None:
    full = relative_error(
        chunk_sums(*EXACT, False, all_met(4), 16)[0], joint(*EXACT, False, DENSE)
    )  # fmt: skip
    stated = compat.require("RingAttentionCorrect").relative_error
    assert stated is not None
    assert stated[0] == full
    assert math.isnan(stated[1])
    assert np.isnan(chunk_sums(*EXACT, True, all_met(4), 16)[0]).any()


def test_one_chunk_is_right_and_says_nothing() -> None:
    q, k, v = (torch.tensor(array) for array in INPUTS)
    correct = module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        correct(q, k, v, 1)
    with pytest.warns(RuntimeWarning, match=r"2\.74 times .* \(rows of NaN with is_causal\)"):
        correct(q, k, v)


def test_sizes_are_returned_where_asked_for() -> None:
    q = torch.zeros(1, 8, 2, 4)
    out, stats = module()(q, q, q, 2, False, True)
    assert out.shape == q.shape
    assert stats == {
        "peak_memory_mb": 0,
        "chunk_memories_mb": [],
        "q_memory_mb": q.nbytes / 2**20,
        "output_memory_mb": q.nbytes / 2**20,
    }


def test_dropout_in_training_only() -> None:
    correct = module(dropout=0.5)
    ones = torch.ones(1, 64, 1, 4)
    torch.manual_seed(0)
    assert not torch.equal(correct(ones, ones, ones, 1), ones)
    exact = np.ones(ones.shape)
    plain = naive_chunk_sums(ones, ones, ones, False, all_met(1), 64)
    tolerance.check("eval", correct.eval()(ones, ones, ones, 1), exact, plain, "float32")


@pytest.mark.parametrize(
    ("ring_size", "message"),
    [(3, "must be divisible by ring_size 3"), (0, "ring_size must be positive")],
)
def test_bad_ring_sizes_are_refused(ring_size: int, message: str) -> None:
    q = torch.zeros(1, 8, 2, 4)
    with pytest.raises(ValueError, match=message):
        module()(q, q, q, ring_size)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("ring_size", [1, 4])
def test_the_second_version_was_dense_attention(ring_size: int, causal: bool) -> None:
    """What its record says; the library's class of this name dilates."""
    ring = dict(np.load(DATA / "ring_vectors.npz"))
    for heads in ("h6", "h7"):
        inputs = [ring[f"inputs/{heads}/{name}"] for name in ("q", "k", "v")]
        exact = joint(*(array.astype(np.float64) for array in inputs), causal, DENSE)
        plain = naive_chunk_sums(
            *(torch.tensor(array) for array in inputs), causal, all_met(1), 64
        )  # fmt: skip
        mode = f"{heads}_{'causal' if causal else 'full'}"
        stored = VECTORS[f"RingDilatedAttentionV2_ring{ring_size}/{mode}/out"]
        tolerance.check("history", stored, exact, plain, "float32")
    assert "dense attention" in compat.require("RingDilatedAttentionV2").measured
