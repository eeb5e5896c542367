"""Planted faults: each must be rejected, and the test that does so is named.

A fault is planted into the package; the check that the named test runs on drawn examples is run on
one example, passes before, and must fail with an AssertionError after.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as settings

from dilated_attention_oracle import Pattern
from support import faults
from support.bytes_moved import bytes_equal_the_count_of_pairs
from support.containment import contains_keys, contains_queries
from support.definition import Question
from support.dropout_checks import draws_afresh, follows_its_seed, masks_equal_philox
from support.merge_checks import SHAPE, merge_equals_oracle
from support.oracle_shares import SHARES, OracleShares
from support.plan_caches import clear_plan_caches
from support.ring_calls import ONE_DEVICE, Ring, equals_oracle, even_ring, fixed_case
from support.ring_checks import bits_equal_one_device, equals_one_device, owns_its_shard_only
from support.run_notes import NOTES
from support.schedule_checks import (
    calls_compute_each_pair_once,
    plans_hold_each_pair_once,
    rounds_of_all_ranks_match,
)
from support.symmetry_checks import prefix_is_independent
from support.token_mixing import functions_mix_as_the_pattern_says

N = 23
PATTERN = Pattern(((6, 1), (11, 2), (40, 3)))
PLAIN = fixed_case(N, PATTERN)
RING = even_ring(N, 3)
QUESTION = Question(PATTERN, N, 4, 2)
PADDED = replace(PLAIN, key_mask=np.arange(N)[None] < 19)
# The first eight keys are masked, so that whole tiles and whole messages are empty.
HOLLOW = replace(PLAIN, key_mask=np.arange(N)[None] >= 8)
DROPPING = replace(PLAIN, dropout_p=0.5, seed=7)
EMPTY_PARTS = [(np.zeros(SHAPE), np.full(SHAPE[:-1], -np.inf)) for _ in range(2)]
SHARDED = "test_properties_oracle::test_sharded_ring"
REPLICATED = "test_properties_oracle::test_replicated_ring"
ONE = "test_properties_oracle::test_one_device"


@dataclass(frozen=True)
class Planted:
    """A fault, the test that must reject it, and an example for that test's check."""

    name: str
    plant: Callable[[pytest.MonkeyPatch], None]
    test: str
    check: Callable[..., object]
    example: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name} -> {self.test}"


def _small(case: Any) -> Any:
    return replace(case, dtype="bfloat16")


PLANTED = [
    Planted("an unmasked pad key", faults.unmasked_pad_key, SHARDED, equals_oracle, (PADDED, RING)),
    Planted("an unmasked pad key", faults.unmasked_pad_key, ONE, equals_oracle, (_small(PADDED),)),
    Planted(
        "an unmasked pad key",
        faults.unmasked_pad_key,
        "test_properties_containment::test_rubbish_keys_reach_only_who_sees_them",
        contains_keys,
        (PADDED, RING, 20, np.nan),
    ),
    Planted(
        "a partial normalised per chunk and summed",
        faults.normalised_per_chunk_and_summed,
        SHARDED,
        equals_oracle,
        (PLAIN, RING),
    ),
    Planted(
        "a partial normalised per chunk and summed",
        faults.normalised_per_chunk_and_summed,
        SHARDED,
        equals_oracle,
        (_small(PLAIN), RING),
    ),
    Planted("a dropped rescale", faults.dropped_rescale, SHARDED, equals_oracle, (PLAIN, RING)),
    Planted(
        "a dropped rescale",
        faults.dropped_rescale,
        ONE,
        equals_oracle,
        (_small(PLAIN), Ring(block=4)),
    ),
    Planted("a residue off by one", faults.residue_off_by_one, ONE, equals_oracle, (PLAIN,)),
    Planted(
        "a residue off by one", faults.residue_off_by_one, ONE, equals_oracle, (_small(PLAIN),)
    ),
    Planted(
        "a residue off by one",
        faults.residue_off_by_one,
        "test_properties_token_mixing::test_functions",
        functions_mix_as_the_pattern_says,
        (PLAIN, RING, 5),
    ),
    Planted("a lost last segment", faults.lost_last_segment, ONE, equals_oracle, (PLAIN,)),
    Planted("a lost last segment", faults.lost_last_segment, ONE, equals_oracle, (_small(PLAIN),)),
    Planted(
        "a lost last segment",
        faults.lost_last_segment,
        "test_properties_schedule::test_plans_hold_each_pair_once",
        plans_hold_each_pair_once,
        (QUESTION, RING),
    ),
    Planted(
        "an own chunk counted twice", faults.own_chunk_twice, SHARDED, equals_oracle, (PLAIN, RING)
    ),
    Planted(
        "an own chunk counted twice",
        faults.own_chunk_twice,
        SHARDED,
        equals_oracle,
        (_small(PLAIN), RING),
    ),
    Planted(
        "an own chunk counted twice",
        faults.own_chunk_twice,
        "test_properties_schedule::test_rings_compute_each_pair_once",
        calls_compute_each_pair_once,
        (QUESTION, RING),
    ),
    Planted(
        "a stale receive buffer in backward",
        faults.stale_buffer_in_backward,
        SHARDED,
        equals_oracle,
        (fixed_case(24, Pattern(((24, 1),))), even_ring(24, 4)),
    ),
    Planted(
        "the last dropout seed reused for every step",
        faults.last_seed_reused,
        "test_properties_dropout::test_every_seed_has_its_own_masks_on_every_ring",
        follows_its_seed,
        (PLAIN, RING, 3),
    ),
    Planted(
        "the last dropout seed reused for every step",
        faults.last_seed_reused,
        "test_properties_dropout::test_no_seed_draws_a_new_one_each_step",
        draws_afresh,
        (ONE_DEVICE,),
    ),
    Planted(
        "an empty partial that gives NaN",
        faults.empty_partial_of_nan,
        ONE,
        equals_oracle,
        (HOLLOW,),
    ),
    Planted(
        "an empty partial that gives NaN",
        faults.empty_partial_of_nan,
        SHARDED,
        equals_oracle,
        (_small(HOLLOW), RING),
    ),
    Planted(
        "an empty partial that gives NaN",
        faults.merge_without_guard,
        "test_properties_merge::test_merge_equals_the_oracle",
        merge_equals_oracle,
        (EMPTY_PARTS,),
    ),
    Planted(
        "the last token of an odd length dropped",
        faults.last_token_of_an_odd_length,
        ONE,
        equals_oracle,
        (PLAIN,),
    ),
    Planted(
        "the last token of an odd length dropped",
        faults.last_token_of_an_odd_length,
        REPLICATED,
        equals_oracle,
        (_small(PLAIN), even_ring(N, 3, layout="replicated")),
    ),
    Planted(
        "an all-gather of everything posing as a ring",
        faults.all_gather_as_a_ring,
        "test_properties_bytes::test_bytes_equal_the_count_of_pairs",
        bytes_equal_the_count_of_pairs,
        (QUESTION, RING),
    ),
    Planted(
        "a shared row sent once for each branch",
        faults.row_sent_twice,
        "test_properties_bytes::test_bytes_equal_the_count_of_pairs",
        bytes_equal_the_count_of_pairs,
        (QUESTION, RING),
    ),
    Planted(
        "a simulated rank that sees the whole sequence",
        faults.sham_loopback,
        "test_properties_rings::test_a_simulated_rank_owns_its_shard_only",
        owns_its_shard_only,
        (PLAIN, RING),
    ),
    Planted(
        "a receive buffer used before its message",
        faults.unread_message,
        SHARDED,
        equals_oracle,
        (PLAIN, RING),
    ),
    Planted(
        "a causal mask that leaks on the diagonal",
        faults.future_leaks,
        "test_properties_symmetry::test_causal_prefix_is_independent",
        prefix_is_independent,
        (replace(PLAIN, is_causal=True), RING, 9),
    ),
    Planted(
        "a forgotten gradient of lse", faults.forgotten_lse_gradient, ONE, equals_oracle, (PLAIN,)
    ),
    Planted(
        "0 times the NaN of a hidden key",
        faults.zero_times_nan,
        "test_properties_containment::test_rubbish_keys_reach_only_who_sees_them",
        contains_keys,
        (replace(PLAIN, is_causal=True), RING, 20, np.nan),
    ),
    Planted(
        "0 times the NaN of a hidden query",
        faults.zero_times_nan,
        "test_properties_containment::test_rubbish_queries_reach_only_what_they_see",
        contains_queries,
        (replace(PLAIN, is_causal=True), RING, 3, np.nan),
    ),
    Planted(
        "receive buffers beyond their bound",
        faults.unbounded_pieces,
        "test_properties_schedule::test_rounds_of_all_ranks_match",
        rounds_of_all_ranks_match,
        (QUESTION, Ring((1, 21, 1))),
    ),
    Planted(
        "a forgotten gradient of lse",
        faults.forgotten_lse_gradient,
        REPLICATED,
        equals_oracle,
        (PLAIN, even_ring(N, 3, layout="replicated")),
    ),
    Planted(
        "dropout counters local to a rank",
        faults.local_dropout_counters,
        "test_properties_dropout::test_masks_equal_the_oracles_philox",
        masks_equal_philox,
        (replace(DROPPING, query=PLAIN.query[:, :, :2], key=PLAIN.key), RING),
    ),
    Planted(
        "dropout counters local to a rank",
        faults.local_dropout_counters,
        "test_properties_rings::test_ring_size_invariance",
        equals_one_device,
        (DROPPING, RING),
    ),
    Planted(
        "gradients of rows that travelled thrown away",
        faults.gradients_never_come_home,
        SHARDED,
        equals_oracle,
        (PLAIN, RING),
    ),
]
REQUIRED = {
    "an unmasked pad key",
    "a partial normalised per chunk and summed",
    "a dropped rescale",
    "a residue off by one",
    "a lost last segment",
    "an own chunk counted twice",
    "a stale receive buffer in backward",
    "the last dropout seed reused for every step",
    "an empty partial that gives NaN",
    "the last token of an odd length dropped",
    "an all-gather of everything posing as a ring",
}


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Comparisons made here are no evidence of how close the package comes to the oracle."""
    monkeypatch.setattr(SHARES, "note", OracleShares().note)
    clear_plan_caches()
    yield
    clear_plan_caches()


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_fault_is_rejected(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.check(*planted.example)
    clear_plan_caches()
    planted.plant(monkeypatch)
    with pytest.raises(AssertionError):
        planted.check(*planted.example)
    NOTES.note("planted faults, and the test that rejects each", str(planted))


def test_every_fault_of_the_list_is_planted() -> None:
    assert {planted.name for planted in PLANTED} >= REQUIRED


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_the_named_test_runs_the_check(planted: Planted) -> None:
    module, _, name = planted.test.partition("::")
    source = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    (test,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    words = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    assert planted.check.__name__ in words


def test_arrival_order_shows_in_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic results need their own order: the usual one gives other bits."""
    case = replace(fixed_case(64, Pattern(((64, 1),))), dtype="float32")
    ring = even_ring(64, 4, deterministic=True, block=8)
    bits_equal_one_device(case, ring)
    usual = replace(ring, deterministic=False)
    with pytest.raises(AssertionError):
        bits_equal_one_device(case, usual)
