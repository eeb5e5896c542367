"""The guide's recipes and DTensors on four processes: the numbers of one process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dilated_attention_oracle import Pattern, Result
from dilated_attention_oracle.strategies import Case
from dilated_attention_oracle.tolerance import check
from support import gloo_recipes
from support.gloo_pool import Failure, GlooPool
from support.ring_calls import ARRAYS, even_ring, fixed_case, judge

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(240), pytest.mark.xdist_group("gloo")]

N = 23
PATTERN = Pattern(((6, 1), (11, 2), (40, 3)))
CASE = replace(fixed_case(N, PATTERN, batch=2), is_causal=True)


@pytest.mark.parametrize("shape", [(2, 2), (1, 4)], ids=["2 x 2", "1 x 4"])
@pytest.mark.parametrize("recipe", ["with_ddp", "with_fsdp"])
def test_a_recipe_gives_one_process_loss_and_gradients(
    gloo_pool: GlooPool, recipe: str, shape: tuple[int, int]
) -> None:
    exact = gloo_recipes.one_process_step(torch.float64)
    plain = gloo_recipes.one_process_step(torch.float32)
    for found in gloo_pool.run(4, gloo_recipes.recipe_step, recipe, shape):
        assert found.keys() == exact.keys()
        for name, array in found.items():
            check(name, array, exact[name], plain[name], "float32")


DTENSORS: dict[str, tuple[Case, tuple[int, ...], tuple[str, ...], Any]] = {
    "sequence": (replace(CASE, dtype="float32"), (4,), ("sequence",), "contiguous"),
    "fewer rows than ranks": (fixed_case(5, PATTERN, batch=2), (4,), ("sequence",), "contiguous"),
    "data x sequence": (
        replace(CASE, key_mask=np.arange(N)[None].repeat(2, 0) < [[17], [23]]),
        (2, 2),
        ("batch", "sequence"),
        "contiguous",
    ),
    "sequence x heads": (
        replace(CASE, key_mask=np.arange(N)[None].repeat(2, 0) < [[17], [23]]),
        (2, 2),
        ("sequence", "heads"),
        "contiguous",
    ),
    "copies x sequence, index map": (
        CASE,
        (2, 2),
        ("copy", "sequence"),
        tuple(np.random.default_rng(1).permutation(N).tolist()),
    ),
    "dropout": (replace(CASE, dropout_p=0.4, seed=3), (4,), ("sequence",), "contiguous"),
}


@pytest.mark.parametrize("name", DTENSORS)
def test_dtensors_equal_the_oracle(gloo_pool: GlooPool, name: str) -> None:
    case, shape, places, order = DTENSORS[name]
    for found in gloo_pool.run(4, gloo_recipes.attend_dtensors, case, shape, places, order):
        result = Result._make((*(found[array] for array in ARRAYS), None, None))
        judge(case, even_ring(N, shape[places.index("sequence")]), result, ", DTensor")


REFUSED = {
    "no sequence": (("batch", "copy"), "", "ValueError", r"Shard(1) on exactly one"),
    "twice": (("sequence", "sequence"), "", "ValueError", "Shard(1) on exactly one"),
    "dropout": (("batch", "sequence"), "dropout", "ValueError", "batch and heads whole"),
    "odd heads": (("sequence", "heads"), "odd heads", "ValueError", "a multiple of 2 heads"),
    "plain key": (("batch", "sequence"), "plain key", "TypeError", "key must be a DTensor"),
    "other placement": (("batch", "sequence"), "other placement", "ValueError", "redistribute"),
    "plain mask": (("batch", "sequence"), "plain mask", "TypeError", "key_mask must be a DTensor"),
    "trained": (("sequence", "heads"), "trained", "ValueError", "need all heads on every rank"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dtensors_that_are_not_served_raise_on_every_rank(gloo_pool: GlooPool, name: str) -> None:
    places, change, kind, words = REFUSED[name]
    for failure in gloo_pool.outcomes(4, gloo_recipes.refused_dtensors, places, change):
        assert isinstance(failure, Failure), failure
        assert failure.kinds[0] == kind, failure.trace
        assert words in failure.message


def test_different_index_maps_raise_on_every_rank(gloo_pool: GlooPool) -> None:
    for failure in gloo_pool.outcomes(4, gloo_recipes.different_maps, 1, fresh=8.0):
        assert isinstance(failure, Failure), failure
        assert failure.kinds[0] == "RankDisagreementError", failure.trace
        assert "disagree on order " in failure.message
        assert "an index map int64 (8,) with digest" in failure.message
