"""Forward of one rank, sharded layout: own keys while the first rows travel, then theirs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..comm import Communicator, RankTask
from ..kernels.carry import Carry
from ..kernels.options import KernelOptions, KeyPart, Result
from ..schedule import RankPlan, RunList
from .alone import whole_sequence
from .lanes import finish
from .shard import Shard, arrive, collect, depart
from .shifted import fetch_queries
from .tiled import forward_tiled, of_rank


def attend(
    query: Tensor,
    shifted: dict[int, Tensor],
    parts: Sequence[KeyPart],
    found: tuple[RunList, ...],
    carry: Carry,
    options: KernelOptions,
) -> None:
    """Add keys to the carry, each branch with the queries that it answers."""
    if not shifted:
        options.backend.forward(query, parts, found, carry, options)
        return
    for branch in range(options.problem.num_branches):
        asked = shifted.get(branch, query)
        some = tuple(runs.of_branch(branch) for runs in found)
        options.backend.forward(asked, parts, some, carry, options)


def forward_rank(
    plan: RankPlan, shard: Shard, options: KernelOptions, comm: Communicator
) -> RankTask[Result]:
    """(out, lse) of the rank's own rows over the keys of all ranks.

    The rows of each group of rounds are merged into the float32 carry as they arrive; two groups
    are in flight, together at most `buffer_shards` shards.
    """
    alone = whole_sequence(plan, options)
    if alone is not None and plan.isolated:
        return alone.forward(shard)
    tiled = of_rank(plan, options, shard)
    if tiled is not None:
        result: Result = yield from forward_tiled(plan, tiled, shard, options, comm)
        return result
    shifted = yield from fetch_queries(plan, shard.query, comm)
    ahead = depart(plan, 0, shard, comm)
    if alone is not None:
        found = alone.forward(shard, wide=True)
        carry = Carry.resume(found.out, found.lse)
    else:
        carry = Carry(shard.query, options.lanes)
        own = KeyPart(shard.key, shard.value, shard.key_mask)
        attend(shard.query, shifted, [own], (plan.local_runs(),), carry, options)
    for index in range(len(plan.groups)):
        transfers, ahead = ahead, depart(plan, index + 1, shard, comm)
        yield from arrive(transfers)
        parts = collect(plan, index, transfers)
        if parts:
            attend(shard.query, shifted, parts, plan.remote_runs(index), carry, options)
        # Before the next group's buffers are made.
        del parts, transfers
    return finish(carry, plan.queries, options, shard.query.dtype)
