"""Count the pairs that plans hold and that calls compute."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from dilated_attention_pytorch import dilated_attention, ring_dilated_attention
from dilated_attention_pytorch.functional.group import order_map
from dilated_attention_pytorch.kernels import select
from dilated_attention_pytorch.layout import make_layout
from dilated_attention_pytorch.ring import ops
from dilated_attention_pytorch.schedule import Groups, Problem, Run, plan_rank
from dilated_attention_pytorch.schedule.messages import message_bound

from .counting_backend import CountingBackend, encoded
from .definition import Pair, Question, require_same_pairs
from .ring_calls import ONE_DEVICE, Ring, library_pattern


def problem_of(question: Question) -> Problem:
    return Problem(
        library_pattern(question.pattern),
        question.n,
        question.heads,
        question.kv_heads,
        question.is_causal,
        question.cu_seqlens,
    )


def pairs_of(
    problem: Problem, runs: tuple[Run, ...], queries: Groups, keys: Groups, heads: tuple[int, ...]
) -> Counter[Pair]:
    """What the runs compute, from row numbers alone."""
    found: Counter[Pair] = Counter()
    group = problem.num_heads // problem.num_kv_heads
    for run in runs:
        for tile in run.tiles(3):
            at, of = queries.positions[tile.query.asarray()], keys.positions[tile.key.asarray()]
            for p, query_x in zip(at.tolist(), tile.query_x.asarray().tolist(), strict=True):
                for k, key_x in zip(of.tolist(), tile.key_x.asarray().tolist(), strict=True):
                    if tile.masked and key_x > query_x:
                        continue
                    for h, g in zip(
                        tile.heads.query.asarray().tolist(),
                        tile.heads.key.asarray().tolist(),
                        strict=True,
                    ):
                        assert heads[g] == h // group
                        found[tile.branch, h, p, k] += 1
    return found


def plans_hold_each_pair_once(question: Question, ring: Ring) -> None:
    """Enumerate the plans of all ranks against the definition."""
    problem = problem_of(question)
    order = order_map(ring.options["order"])
    layout = make_layout(question.n, ring.size, order, ring.shard_lengths)
    found: Counter[Pair] = Counter()
    for rank in range(ring.size):
        plan = plan_rank(problem, layout, rank, ring.buffer_shards)
        every_head = tuple(range(question.kv_heads))
        found += pairs_of(problem, plan.local_runs(), plan.queries, plan.keys, every_head)
        for group in range(len(plan.groups)):
            if not plan.received(group):
                continue
            for key_class, positions, runs in zip(
                plan.classes,
                plan.gathered(group).positions,
                plan.remote_runs(group),
                strict=True,
            ):
                keys = Groups(problem, positions, queries=False)
                found += pairs_of(problem, runs, plan.queries, keys, key_class.heads)
    require_same_pairs(found, question.pairs())


def calls_compute_each_pair_once(question: Question, ring: Ring) -> None:
    """Run real calls on a backend that counts, forward and backward."""
    counting = CountingBackend()
    query = encoded(question.n, question.heads).requires_grad_()
    key = encoded(question.n, question.kv_heads)
    options: dict[str, Any] = {
        "is_causal": question.is_causal,
        "cu_seqlens": question.cu_seqlens,
        "backend": "counting",
        "deterministic": ring.deterministic,
    }
    pattern = library_pattern(question.pattern)
    with pytest.MonkeyPatch.context() as patch:
        entry = select.Entry(lambda request: None, lambda device: (counting, None))
        patch.setitem(select._BACKENDS, "counting", entry)
        # Calls are kept by the name of their backend.
        ops._prepared.cache_clear()
        if ring is ONE_DEVICE:
            out = dilated_attention(query, key, key.clone(), pattern, **options)
        else:
            out = ring_dilated_attention(
                query, key, key.clone(), pattern, **options, **ring.options
            )
        out.backward(torch.ones_like(out))
    pairs = question.pairs()
    require_same_pairs(counting.forward_pairs, pairs)
    require_same_pairs(counting.backward_pairs, pairs)


def rounds_of_all_ranks_match(question: Question, ring: Ring) -> None:
    """What a rank expects in a round is what the other sends in it, and fits the buffers."""
    layout = make_layout(
        question.n, ring.size, order_map(ring.options["order"]), ring.shard_lengths
    )
    plans = [
        plan_rank(problem_of(question), layout, rank, ring.buffer_shards)
        for rank in range(ring.size)
    ]
    assert len({tuple(map(len, plan.groups)) for plan in plans}) == 1
    # Groups of more rounds rely on the bound.
    bound = message_bound(plans[0].problem, layout)
    for rank, plan in enumerate(plans):
        room = max(ring.buffer_shards * layout.lengths[rank], 2) * question.kv_heads
        held = 0
        for index, planned in enumerate(plan.rounds):
            partner = plans[planned.source].rounds[index]
            assert (planned.received is None) == (partner.sent is None)
            size = 0
            if planned.received is not None and partner.sent is not None:
                assert partner.target == rank
                for ours, theirs in zip(
                    planned.received.positions, partner.sent.positions, strict=True
                ):
                    assert ours.tolist() == theirs.tolist()
                size = sum(
                    len(rows) * len(key_class.heads)
                    for rows, key_class in zip(planned.received.rows, plan.classes, strict=True)
                )
            # The piece that is used and the one that arrives share the receive buffers.
            assert held + size <= room
            held = size
            assert size <= bound
        held = 0
        for group in plan.groups:
            pieces = [piece for piece in group if piece.received is not None]
            size = sum(
                len(rows) * len(key_class.heads)
                for piece in pieces
                for rows, key_class in zip(piece.received.rows, plan.classes, strict=True)
            )
            # Several are there as they came and gathered, beside the group before.
            assert held + size * (1 + (len(pieces) > 1)) <= room
            held = size
