"""Rings of real processes: the oracle's numbers, the simulation's bits, and its messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dilated_attention_oracle import Pattern, Result
from dilated_attention_oracle.strategies import Case
from dilated_attention_pytorch.comm import record_messages
from support import gloo_programs
from support.gloo_pool import GlooPool
from support.gloo_programs import RankResult
from support.ring_calls import (
    ARRAYS,
    Ring,
    attend,
    differentiate,
    even_ring,
    fixed_case,
    judge,
    run,
    tensors,
)

pytestmark = [pytest.mark.gloo, pytest.mark.timeout(240), pytest.mark.xdist_group("gloo")]

N = 23
PATTERN = Pattern(((6, 1), (11, 2), (40, 3)))
PLAIN = fixed_case(N, PATTERN)
CASES: dict[str, tuple[Case, Ring]] = {
    "even": (PLAIN, even_ring(N, 4)),
    "uneven": (PLAIN, Ring((2, 13, 1, 7))),
    "empty shard": (replace(PLAIN, is_causal=True), Ring((9, 0, 14))),
    "two ranks": (replace(PLAIN, dtype="float32"), even_ring(N, 2)),
    "one rank": (PLAIN, Ring((N,))),
    "more ranks than rows": (fixed_case(2, PATTERN), even_ring(2, 4)),
    "zigzag causal": (replace(PLAIN, is_causal=True), even_ring(N, 4, order="zigzag")),
    "index map": (PLAIN, Ring((5, 11, 7), order=tuple(np.random.default_rng(1).permutation(N)))),
    "deterministic": (PLAIN, Ring((3, 12, 8), deterministic=True)),
    "masked, bfloat16": (
        replace(PLAIN, key_mask=np.arange(N)[None] < 17, dtype="bfloat16"),
        even_ring(N, 3),
    ),
    "documents": (
        replace(PLAIN, cu_seqlens=np.array([0, 4, 4, 15, N]), is_causal=True),
        even_ring(N, 3),
    ),
    "dropout": (replace(PLAIN, dropout_p=0.4, seed=2**40 + 1), even_ring(N, 4)),
    "batch": (fixed_case(N, PATTERN, batch=2, kv_heads=1), even_ring(N, 2)),
    "torchscale": (
        fixed_case(N, Pattern(((5, 2), (40, 4)), "torchscale", None, True, True, True)),
        Ring((6, 9, 8)),
    ),
    "replicated": (PLAIN, Ring((2, 13, 1, 7), "replicated")),
    "replicated causal": (replace(PLAIN, is_causal=True), Ring((9, 0, 14), "replicated")),
    "replicated zigzag": (PLAIN, even_ring(N, 4, layout="replicated", order="zigzag")),
    "replicated torchscale": (
        fixed_case(N, Pattern(((5, 2), (40, 4)), "torchscale", None, True, True, True)),
        Ring((6, 9, 8), "replicated"),
    ),
}


def joined(found: list[RankResult], case: Case, ring: Ring, *, full_keys: bool) -> Result:
    """The ranks' rows in global order; what every rank has must be equal on all."""
    whole = {"out", "lse", "dq"} if ring.layout == "replicated" else set()
    whole |= {"dk", "dv"} if full_keys else set()
    arrays = {}
    for name in ARRAYS:
        first = found[0].arrays[name]
        if name in whole:
            for other in found[1:]:
                assert np.array_equal(other.arrays[name], first), name
            arrays[name] = first
            continue
        arrays[name] = np.full((first.shape[0], case.length, *first.shape[2:]), np.nan)
        for rank in found:
            arrays[name][:, rank.positions] = rank.arrays[name]
    return Result._make((*(arrays[name] for name in ARRAYS), None, None))


def real_ring_equals(pool: GlooPool, case: Case, ring: Ring, *, full_keys: bool = False) -> None:
    found = pool.run(ring.size, gloo_programs.attend, case, ring, full_keys)
    result = joined(found, case, ring, full_keys=full_keys)
    judge(case, ring, result, ", Gloo")
    simulated = run(case, ring)
    for name in ARRAYS:
        assert np.array_equal(getattr(result, name), getattr(simulated, name)), name


@pytest.mark.parametrize("name", CASES)
def test_real_rings_equal_the_oracle_and_the_simulation(gloo_pool: GlooPool, name: str) -> None:
    real_ring_equals(gloo_pool, *CASES[name])


def test_replicated_takes_and_returns_all_keys(gloo_pool: GlooPool) -> None:
    real_ring_equals(gloo_pool, *CASES["replicated"], full_keys=True)


@pytest.mark.parametrize("name", CASES)
def test_simulated_and_real_rings_send_the_same_messages(gloo_pool: GlooPool, name: str) -> None:
    """Label, receiver and bytes of every message, in the order of each sender."""
    case, ring = CASES[name]
    real = gloo_pool.run(ring.size, gloo_programs.attend, case, ring)
    inputs = tensors(case, requires_grad=True)
    with record_messages() as forward:
        results = attend(case, ring, *inputs)
    with record_messages() as backward:
        differentiate(case, ring, results, inputs)
    assert ring.size == 1 or case.length < 3 or forward
    for rank, found in enumerate(real):
        assert found.forward == [message for message in forward if message.source == rank]
        assert found.backward == [message for message in backward if message.source == rank]


def test_the_first_rank_draws_the_seed(gloo_pool: GlooPool) -> None:
    found = gloo_pool.run(3, gloo_programs.drawn_masks)
    for other in found[1:]:
        assert np.array_equal(other, found[0])
    first, second = found[0]
    assert not np.array_equal(first, second), "two steps share their dropout mask"


@pytest.mark.parametrize(
    "ring",
    [
        even_ring(N, 4),
        Ring((2, 0, 20, 1)),
        even_ring(N, 3, order="zigzag"),
        Ring((5, 11, 7), order=tuple(np.random.default_rng(2).permutation(N))),
    ],
    ids=["even", "empty shard", "zigzag", "index map"],
)
def test_shard_and_unshard_over_a_group(gloo_pool: GlooPool, ring: Ring) -> None:
    """The inverse of each other; the gradient is that of the sum of the ranks' losses."""
    found = gloo_pool.run(ring.size, gloo_programs.sharded_and_back, N, ring)
    x = np.arange(2.0 * N * 3).reshape(2, N, 3)
    total = sum(range(1, ring.size + 1))
    assert ring.shard_lengths is not None
    for rank, (whole, gradient, mine) in enumerate(found):
        assert np.array_equal(whole, x)
        assert mine.shape == (2, ring.shard_lengths[rank], 3)
        assert np.array_equal(gradient, np.full_like(mine, total))


N_MEMORY = 2048


def test_a_sharded_ranks_peak_falls_as_the_ring_grows(gloo_pool: GlooPool) -> None:
    """At most ten arrays of the rank's share, for every R: rows, gradients, receive buffers."""
    whole = gloo_programs.whole_bytes(N_MEMORY)
    for size in (1, 2, 4):
        peaks = gloo_pool.run(size, gloo_programs.peak_bytes, N_MEMORY, "sharded")
        print(f"sharded, R = {size}: {max(peaks) / whole * size:.2f} shares of {whole // size}")
        assert max(peaks) <= 10 * whole / size, peaks


def test_a_replicated_ranks_keys_and_intermediates_fall(gloo_pool: GlooPool) -> None:
    """q, out, dout, dq and four numbers a row and head stay whole; the rest is seven shares."""
    whole = gloo_programs.whole_bytes(N_MEMORY)
    kept = 4 * whole + 4 * whole // gloo_programs.WIDTH
    for size in (1, 2, 4):
        peaks = gloo_pool.run(size, gloo_programs.peak_bytes, N_MEMORY, "replicated")
        rest = max(peaks) - kept
        print(f"replicated, R = {size}: whole {kept}, and {rest / whole * size:.2f} shares")
        assert rest <= 7 * whole / size, peaks


def test_an_exchange_that_was_waited_for_lets_go_of_its_buffers(gloo_pool: GlooPool) -> None:
    """Whoever waited may hold it while the next piece is computed."""
    assert gloo_pool.run(2, gloo_programs.buffers_after_waiting) == [0, 0]
