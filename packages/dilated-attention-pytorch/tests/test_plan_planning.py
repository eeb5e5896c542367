"""Plans as a whole: what fits, how long a sequence may be, and how soon a large plan is made."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dilated_attention_pytorch import DilationPattern, cost
from dilated_attention_pytorch.plan import GPUS, NVLINK, Call, Link, Links, Source, plan_call
from dilated_attention_pytorch.plan.planning import largest_length, plan_ring
from dilated_attention_pytorch.schedule import Problem

LADDER = DilationPattern.longnet([2048 << i for i in range(5)], [1 << i for i in range(5)])
CALL = Call(LADDER, 131_072, 16, 16, 128)
H200 = GPUS["h200"]
# Of processor time, on one core of a small machine.
SECONDS = 30


@pytest.mark.parametrize(
    ("pattern", "causal"),
    [
        (LADDER, True),
        (DilationPattern.longnet([2048, 65_536, 10**6, 10**9], [1, 16, 256, 4096]), False),
    ],
    ids=["causal ladder", "over all of it"],
)
def test_a_thousand_million_tokens_on_4096_ranks_take_seconds(
    pattern: DilationPattern, causal: bool
) -> None:
    began = time.process_time()
    call = Call(pattern, 10**9, 16, 4, 128, is_causal=causal)
    plan = plan_call(call, 4096, H200, NVLINK)
    assert time.process_time() - began < SECONDS
    assert plan.ring.fits
    assert plan.ring.step is not None
    assert plan.best is not None
    assert plan.best < 4096
    assert plan.flops[0] == cost.attention_flops(call.problem, 1, 128)
    assert plan.flops[0] <= 4096 * plan.ring.flops[0]


@pytest.mark.parametrize("size", [1, 4])
def test_the_longest_sequence_fits_and_a_longer_one_does_not(size: int) -> None:
    longest = largest_length(CALL, size, H200)
    longer = replace(CALL, n=longest + longest // 500)
    assert plan_ring(replace(CALL, n=longest), size, H200, NVLINK).fits
    assert not plan_ring(longer, size, H200, NVLINK).fits


def test_nothing_fits_a_gpu_without_memory() -> None:
    plan = plan_call(CALL, 2, replace(H200, memory=1000), NVLINK, most=4)
    assert plan.largest_n == 0
    assert (plan.best, plan.fastest) == (None, None)
    assert not plan.ring.fits


def test_the_best_ring_is_the_smallest_that_fits() -> None:
    sizes = {one.ring_size: one.memory.peak for one in plan_call(CALL, 1, H200, NVLINK).rings}
    plan = plan_call(CALL, 1, replace(H200, memory=sizes[4]), NVLINK)
    assert plan.best == 4
    assert [one.fits for one in plan.rings] == [size >= 4 for size in sizes]


def test_a_slow_link_is_waited_for() -> None:
    links = [Links(Link(0.0, bandwidth), None, "test") for bandwidth in (1e15, 1e9)]
    fast, slow = (plan_ring(CALL, 8, H200, one).step for one in links)
    assert fast is not None
    assert slow is not None
    assert fast.exposed_forward == pytest.approx(0, abs=1e-6)
    assert fast.exposed_backward == pytest.approx(0, abs=1e-6)
    sent = plan_ring(CALL, 8, H200, NVLINK).sent
    assert slow.forward + slow.exposed_forward >= sent.forward / 1e9
    assert slow.backward + slow.exposed_backward >= sent.backward / 1e9
    assert slow.forward + slow.backward == fast.forward + fast.backward


def test_a_rank_of_four_takes_half_the_time_of_one_of_two_and_little_more() -> None:
    two, four = (plan_ring(CALL, size, H200, NVLINK).step for size in (2, 4))
    assert two is not None
    assert four is not None
    assert 1 <= 2 * four.forward / two.forward < 1.05
    assert 1 <= 2 * four.backward / two.backward < 1.05


def test_times_are_of_what_auto_takes() -> None:
    fast = plan_call(CALL, 1, H200, NVLINK, most=2)
    assert fast.rates == Source("gluon", "NVIDIA H200")
    short = replace(CALL, pattern=DilationPattern.longnet([64, 4096], [1, 2]))
    slow = plan_call(short, 1, H200, NVLINK, most=2)
    assert slow.rates == Source("triton", "NVIDIA H200")
    for plan in (fast, slow):
        one, two = (ring.step for ring in plan.rings)
        assert one is not None
        assert two is not None
        assert two.forward < one.forward


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dtype": "float32"}, "not float32"),
        ({"head_dim": 20}, "times of the backend triton"),
        ({"head_dim": 256}, "not 256"),
        ({"pattern": DilationPattern.longnet([2048], [512])}, "every 512th row"),
    ],
)
def test_what_was_not_measured_has_no_time(change: dict[str, object], why: str) -> None:
    plan = plan_call(replace(CALL, **change), 1, H200, NVLINK, most=1)  # type: ignore[arg-type]
    assert plan.ring.step is None
    assert (plan.fastest, plan.rates) == (None, None)
    assert plan.untimed is not None
    assert why in plan.untimed


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"buffer_shards": 1}, "buffer_shards must be at least 2"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"pattern": DilationPattern.preset("gigapath")}, "torchscale's switches"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(CALL, **change)  # type: ignore[arg-type]


def test_the_ring_asked_for_may_be_any_size() -> None:
    plan = plan_call(CALL, 3, H200, NVLINK, most=4)
    assert [one.ring_size for one in plan.rings] == [1, 2, 4]
    assert plan.ring.ring_size == 3
    problem = Problem(LADDER, CALL.n, 16, 16)
    assert plan.flops[0] == 4 * 128 * cost.visible_pairs(problem)
