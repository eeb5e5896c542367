"""Transports of real ranks over Gloo: what they keep, agree on, record, and refuse."""

from __future__ import annotations

import pytest

from support import transport_programs as programs
from support.gloo_pool import Failure, GlooPool

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(120), pytest.mark.xdist_group("gloo")]

SIZE = 4
SYMMETRIC = dict.fromkeys(range(2), "symmetric")


@pytest.mark.parametrize("case", programs.CASES)
def test_no_step_but_the_first_makes_a_message_buffer(gloo_pool: GlooPool, case: str) -> None:
    for made, equal in gloo_pool.run(SIZE, programs.steps_with_kept_buffers, case):
        first, second, third = made
        assert first > 0
        assert second - first <= 2, "buffers of rows may be found too small for gradients"
        assert third == second
        assert equal, "the same bits as with buffers that are new each time"


def test_a_buffer_used_too_soon_shows(gloo_pool: GlooPool) -> None:
    """Planted: every buffer counts as free."""
    found = gloo_pool.run(SIZE, programs.steps_with_kept_buffers, "dense", True)
    assert not all(equal for _, equal in found)


def test_the_rounds_of_a_group_are_one_exchange(gloo_pool: GlooPool) -> None:
    for batches in gloo_pool.run(SIZE, programs.batches, "ladder"):
        label, sends, receives = batches[0]
        assert label == "key_value"
        assert sends == receives == SIZE - 1
    for batches in gloo_pool.run(SIZE, programs.batches, "dense"):
        assert [x[1:] for x in batches[: SIZE - 1]] == [(1, 1)] * (SIZE - 1)


def test_times_of_exchanges_are_recorded_in_order(gloo_pool: GlooPool) -> None:
    for times in gloo_pool.run(2, programs.times):
        assert {label for label, *_ in times} == {"key_value", "gradient"}
        for _, nbytes, posted, needed, arrived in times:
            assert nbytes > 0
            assert 0 <= posted <= needed <= arrived


def test_a_late_peer_is_seen_in_the_times(gloo_pool: GlooPool) -> None:
    """Planted: rank 1 posts its rows late, so rank 0 waits and rank 1 does not."""
    late = 0.3
    (worked, waited), (other_worked, other_waited) = gloo_pool.run(2, programs.waited_for, late)
    assert min(worked, other_worked) >= 1e3 * late / 3
    assert waited > 1e3 * late / 3 > other_waited


def test_a_wrong_name_of_a_transport_is_refused(gloo_pool: GlooPool) -> None:
    found = gloo_pool.outcomes(2, programs.with_transport, {1: "carrier pigeon"})
    assert isinstance(found[0], Failure)
    assert isinstance(found[1], Failure)
    assert found[0].kinds[0] == "PeerError"
    assert "refused on rank 1" in found[0].message
    assert found[1].kinds[0] == "ValueError"
    assert "must be 'p2p', 'symmetric' or 'auto', got 'carrier pigeon'" in found[1].message


def test_ranks_that_were_told_different_transports_say_so(gloo_pool: GlooPool) -> None:
    for failure in gloo_pool.outcomes(2, programs.with_transport, {0: "p2p"}):
        assert failure.kinds[0] == "RankDisagreementError"
        assert "disagree on transport" in failure.message


def test_ranks_that_know_different_links_say_so(gloo_pool: GlooPool) -> None:
    for failure in gloo_pool.outcomes(2, programs.with_other_links, 1):
        assert failure.kinds[0] == "RankDisagreementError"
        assert "disagree on transport" in failure.message


def test_symmetric_memory_without_gpus_is_refused_and_p2p_is_not(gloo_pool: GlooPool) -> None:
    for failure in gloo_pool.outcomes(
        2, programs.with_transport, dict.fromkeys(range(2), "symmetric")
    ):
        assert failure.kinds[0] == "ValueError"
        assert "needs a group with the backend nccl, got gloo" in failure.message
    assert gloo_pool.run(2, programs.with_transport, dict.fromkeys(range(2), "p2p")) == ["ran"] * 2


def test_the_transport_follows_from_links(gloo_pool: GlooPool) -> None:
    """Rows of slow sends and receives go to symmetric memory, a mask with them."""
    for slow, fast in gloo_pool.run(2, programs.chosen_for_links):
        assert slow == {
            "key_value": "symmetric",
            "key_mask": "symmetric",
            "gradient": "symmetric",
        }
        assert set(fast.values()) == {"p2p"}


def test_buffers_can_be_released(gloo_pool: GlooPool) -> None:
    for kept, left, links in gloo_pool.run(2, programs.kept_and_released):
        assert kept > 0
        assert (left, links) == (0, None)


@pytest.mark.parametrize("name", ["ladder, causal", "ragged shards", "key mask", "replicated"])
def test_the_suite_for_shared_gpus_judges_every_array(gloo_pool: GlooPool, name: str) -> None:
    result = gloo_pool.run(2, programs.shared_gpu_case, name)[0]
    assert result["wrong"] == []
    assert set(result["shares"]) == {"out", "lse", "dq", "dk", "dv"}
    assert result["repeats"]


@pytest.mark.parametrize("planted", ["out", "lse", "dk"])
def test_the_suite_for_shared_gpus_sees_a_wrong_array(gloo_pool: GlooPool, planted: str) -> None:
    result = gloo_pool.run(2, programs.shared_gpu_case, "ladder, causal", planted)[0]
    assert len(result["wrong"]) == 1
    assert planted in result["wrong"][0]


def test_overlap_is_told_of_every_rank(gloo_pool: GlooPool) -> None:
    for found in gloo_pool.run(2, programs.overlap):
        assert found["ring_size"] == len(found["ranks"]) == 2
        for told in found["ranks"]:
            for way in ("forward", "backward"):
                assert told[way]["exchanges"], "the ladder's last branch spans the sequence"
                assert 0 <= told[way]["hidden_share"] <= 1
                assert told[way]["waited_for_ms"] <= told[way]["ms"]


def test_shares_hidden() -> None:
    from benchmarks.overlap import hidden_share

    def one(posted: float, needed: float, arrived: float) -> dict[str, float]:
        waited = max(0.0, arrived - needed)
        return {"posted_ms": posted, "arrived_ms": arrived, "waited_for_ms": waited}

    assert hidden_share([one(0, 10, 4), one(5, 6, 7)]) == pytest.approx(5 / 6)
    assert hidden_share([one(0, 0, 3)]) == 0
    assert hidden_share([]) is None
