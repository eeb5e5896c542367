"""A rank's own rows through the kernels for whole sequences, where they are one by themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..kernels.options import KernelOptions, Result, WholeBackend
from ..schedule import RankPlan
from .shard import Shard


@dataclass(frozen=True, slots=True)
class OwnSequence:
    """The rank's own keys for its own queries, as one sequence (`schedule.own_problem`).

    Args:
        backend: kernels for a whole sequence.
        options: of the ring, with the problem of the rank's own rows.
    """

    backend: WholeBackend
    options: KernelOptions

    def forward(self, shard: Shard, *, wide: bool = False) -> Result:
        """(out, lse) over the rank's own keys; with `wide` in float32, for more keys to come."""
        operands = shard.query, shard.key, shard.value, shard.key_mask
        return self.backend.forward(*operands, self.options, wide=wide)

    def backward(
        self, shard: Shard, dout: Tensor, dlse: Tensor | None, result: Result, *, wide: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Their share of the gradient, for the result over the keys of all ranks."""
        operands = shard.query, shard.key, shard.value, shard.key_mask, dout, dlse, result
        return self.backend.backward(*operands, self.options, wide=wide)


def whole_sequence(plan: RankPlan, options: KernelOptions) -> OwnSequence | None:
    """The rank's own rows as a sequence; None where they are none, or no kernels are for them."""
    problem = None if options.own is None else plan.own_problem()
    if options.own is None or problem is None:
        return None
    return OwnSequence(options.own, replace(options, problem=problem))
