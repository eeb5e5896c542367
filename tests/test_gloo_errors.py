"""Ranks that disagree, miscount, fail or die: every rank raises, in time, and says why."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import torch

from support import gloo_programs
from support.gloo_pool import Failure, GlooPool, run_mortal

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(240), pytest.mark.xdist_group("gloo")]

SIZE = 3
ODD = 1
# What rank 1 does otherwise, and the field that every rank's message names.
DISAGREEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "pattern": ({"segments": [8, 32]}, "pattern"),
    "dtype": ({"dtype": torch.float64}, "dtype"),
    "heads": ({"heads": 4}, "num_heads"),
    "key heads": ({"kv_heads": 1}, "num_kv_heads"),
    "width": ({"width": 8}, "head_dim"),
    "batch": ({"batch": 2}, "batch"),
    "causal": ({"options": {"is_causal": True}}, "is_causal"),
    "scale": ({"options": {"scale": 0.25}}, "scale"),
    "negative scale": ({"options": {"scale": -1.0}}, "scale"),
    "layout": ({"options": {"layout": "replicated"}}, "layout"),
    "order": ({"options": {"order": "zigzag"}}, "order"),
    "shard lengths": ({"options": {"shard_lengths": [4, 4, 4]}}, "shard_lengths"),
    "buffers": ({"options": {"buffer_shards": 3}}, "buffer_shards"),
    "mask": ({"options": {"key_mask": torch.ones(1, 4, dtype=torch.bool)}}, "key_mask"),
    "documents": ({"options": {"cu_seqlens": [0, 5, 12]}}, "cu_seqlens"),
    "dropout": ({"options": {"dropout_p": 0.5}}, "dropout_p"),
    "deterministic": ({"options": {"deterministic": True}}, "deterministic"),
    "backend": ({"options": {"backend": "eager"}}, "backend"),
    "gradients": ({"requires_grad": True}, "requires_grad"),
}


def failures(found: list[Any]) -> list[Failure]:
    assert all(isinstance(outcome, Failure) for outcome in found), found
    return found


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_different_arguments_raise_on_every_rank(gloo_pool: GlooPool, name: str) -> None:
    change, field = DISAGREEMENTS[name]
    for failure in failures(
        gloo_pool.outcomes(SIZE, gloo_programs.disagree, ODD, change, fresh=8.0)
    ):
        assert failure.kinds[:2] == ("RankDisagreementError", "ValueError"), failure.trace
        assert f"disagree on {field} " in failure.message
        assert "ranks 0, 2" in failure.message
        assert "rank 1" in failure.message


def test_lengths_that_do_not_fit_raise_on_every_rank(gloo_pool: GlooPool) -> None:
    found = gloo_pool.outcomes(SIZE, gloo_programs.disagree, ODD, {"rows": 7}, fresh=8.0)
    for failure in failures(found):
        assert "ValueError" in failure.kinds
        assert "[4, 7, 4]" in failure.message
        assert "shard_lengths" in failure.message


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern of lists": ({"plain_pattern": True}, "TypeError"),
    "too wide heads": ({"width": 300}, "ValueError"),
    "no such backend": ({"options": {"backend": 5}}, "TypeError"),
    "a bad probability": ({"options": {"dropout_p": 1.5}}, "ValueError"),
    "documents that are no sequence": ({"options": {"cu_seqlens": 12}}, "TypeError"),
    "lengths that are no sequence": ({"options": {"shard_lengths": 12}}, "TypeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_argument_raises_there_and_peer_errors_elsewhere(
    gloo_pool: GlooPool, name: str
) -> None:
    change, kind = REFUSED[name]
    found = failures(gloo_pool.outcomes(SIZE, gloo_programs.disagree, ODD, change, fresh=8.0))
    assert found[ODD].kinds[0] == kind, found[ODD].trace
    for rank in (0, 2):
        assert found[rank].kinds[0] == "PeerError", found[rank].trace
        assert "rank 1" in found[rank].message


def test_forward_against_backward_raises_on_every_rank(gloo_pool: GlooPool) -> None:
    for failure in failures(gloo_pool.outcomes(SIZE, gloo_programs.miscount, ODD, fresh=8.0)):
        assert failure.kinds[0] == "RankDisagreementError", failure.trace
        assert "ranks 0, 2 in backward; rank 1 in forward" in failure.message


def test_a_call_less_raises_within_the_timeout(gloo_pool: GlooPool) -> None:
    found = gloo_pool.outcomes(SIZE, gloo_programs.stop_early, ODD, fresh=2.0)
    assert found[ODD] == "made its call"
    for rank in (0, 2):
        assert isinstance(found[rank], Failure)
        assert found[rank].kinds[0] == "PeerError", found[rank].trace
        assert f"rank {rank}, step 2: failed in agreeing on the call" in found[rank].message
        assert "; rank 1 is still in step 1" in found[rank].message


def test_a_pattern_that_one_rank_has_met_before_still_differs(gloo_pool: GlooPool) -> None:
    """A, A on one rank, A, B on the others: no cache may answer for a rank."""
    name = "calls A, A where the others call A, B"
    for failure in failures(gloo_pool.outcomes(SIZE, gloo_programs.fault, name, ODD, 8.0)):
        assert failure.kinds[0] == "RankDisagreementError", failure.trace
        assert "disagree on pattern (ranks 0, 2 and rank 1 differ" in failure.message


def test_ranks_that_swapped_their_rows_all_raise(gloo_pool: GlooPool) -> None:
    found = gloo_pool.outcomes(SIZE, gloo_programs.fault, "rows of another rank", ODD, 8.0)
    for failure in failures(found):
        assert "the ranks hold [64, 72, 64] rows, expected [72, 64, 64]" in failure.message


def test_a_nan_of_one_rank_reaches_the_rows_that_see_it_and_no_others(gloo_pool: GlooPool) -> None:
    for outcome in gloo_pool.run(SIZE, gloo_programs.fault, "a NaN in its values", ODD, 8.0):
        found, seen = re.findall(r"\d+", outcome)
        assert found == seen != "0"


def test_a_rank_that_is_slow_within_the_timeout_fails_nobody(gloo_pool: GlooPool) -> None:
    name, seconds = "slow, within the timeout", 2.0
    started = time.monotonic()
    found = gloo_pool.outcomes(SIZE, gloo_programs.fault, name, ODD, seconds, fresh=seconds)
    assert found == ["finished"] * SIZE
    assert time.monotonic() - started > seconds / 2, "the rank was not slow"


def test_a_rank_that_raises_and_lives_tells_the_others_why(gloo_pool: GlooPool) -> None:
    name = "raises, its process lives"
    found = gloo_pool.outcomes(SIZE, gloo_programs.fault, name, ODD, 1.5, fresh=2.0)
    assert found[ODD] == "caught its own error"
    for rank in (0, 2):
        assert "rank 1 raised in step 3: RuntimeError: injected" in found[rank].message


SECONDS = 4.0
DEATHS = {
    "killed in forward": ("killed", "key_value", 1),
    "killed in backward": ("killed", "gradient", 0),
    "exited in backward": ("exited", "key_value", 3),
    "raised in forward": ("raised", "key_value", 0),
    "stuck in forward": ("stuck", "key_value", 1),
    "stuck in backward": ("stuck", "gradient", 1),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_rank_that_ends_mid_step_makes_the_others_raise(name: str) -> None:
    how, label, countdown = DEATHS[name]
    arguments = (ODD, how, label, countdown)
    ended = run_mortal(SIZE, SECONDS, (0, 2), gloo_programs.mortal_step, *arguments)
    for rank in (0, 2):
        assert rank in ended, f"rank {rank} hangs"
        failure = ended[rank].outcome
        assert isinstance(failure, Failure), failure
        assert failure.kinds[0] == "PeerError", failure.trace
        assert re.search(rf"rank {rank}, step [12]: failed in exchange \d+: ", failure.message)
        assert "rank 1" in failure.message, "it names the peer"
        assert ended[rank].seconds < 2 * SECONDS, "longer than the group's timeout"
    if how == "raised":
        assert ended[ODD].outcome.message == "planted: the kernel failed"
    else:
        assert ODD not in ended
