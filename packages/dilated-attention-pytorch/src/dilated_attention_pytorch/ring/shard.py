"""One rank's tensors, and the exchange of the key/value rows of one round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..comm import Communicator, RankTask, Work
from ..kernels.options import KeyPart
from ..schedule import RankPlan, Round
from .packing import (
    block_shapes,
    flat_size,
    join,
    join_masks,
    mask_size,
    pack,
    pack_mask,
    unpack,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows that a rank owns: (b, n_rank, h, d), key mask (b, n_rank) or None."""

    query: Tensor
    key: Tensor
    value: Tensor
    key_mask: Tensor | None = None


class Transfer:
    """The key/value exchange of one round, posted on construction."""

    def __init__(self, plan: RankPlan, planned: Round, shard: Shard, comm: Communicator) -> None:
        b, _, _, d = shard.key.shape
        self._plan, self.batch, self.head_dim = plan, b, d
        self.round = planned
        self._flat: Tensor | None = None
        self._mask: Tensor | None = None
        sends: list[tuple[int, Tensor]] = []
        receives: list[tuple[int, Tensor]] = []
        mask_sends: list[tuple[int, Tensor]] = []
        mask_receives: list[tuple[int, Tensor]] = []
        out, into = self.round.sent, self.round.received
        if out is not None:
            sends.append((self.round.target, pack(out, plan.classes, shard.key, shard.value)))
            if shard.key_mask is not None:
                mask_sends.append((self.round.target, pack_mask(out, shard.key_mask)))
        if into is not None:
            shapes = block_shapes(into, plan.classes, b, d)
            self._flat = shard.key.new_empty(flat_size(shapes))
            receives.append((self.round.source, self._flat))
            if shard.key_mask is not None:
                self._mask = shard.key.new_empty(mask_size(into, b), dtype=torch.uint8)
                mask_receives.append((self.round.source, self._mask))
        # The buffers that leave are held here until the exchange is over.
        self._held: Any = (sends, mask_sends)
        self.works: list[Work] = []
        if sends or receives:
            self.works.append(comm.exchange("key_value", sends, receives))
        if mask_sends or mask_receives:
            self.works.append(comm.exchange("key_mask", mask_sends, mask_receives))

    def let_go(self) -> None:
        """Forget what was sent; the exchange is over."""
        self._held = None
        self.works.clear()

    @property
    def arrived(self) -> tuple[Tensor, Tensor | None] | None:
        """The received rows and their mask, packed; None where nothing was received."""
        return None if self._flat is None else (self._flat, self._mask)

    def parts(self) -> list[KeyPart]:
        """The received rows, one part for each key class; none where nothing was received."""
        if self.round.received is None or self._flat is None:
            return []
        return unpack(
            self.round.received,
            self._plan.classes,
            self._flat,
            self._mask,
            self.batch,
            self.head_dim,
        )


def arrive(transfers: Sequence[Transfer]) -> RankTask[None]:
    """Wait for all."""
    for transfer in transfers:
        yield from transfer.works


def collect(plan: RankPlan, group: int, transfers: list[Transfer]) -> list[KeyPart]:
    """What a finished group of rounds brought, one part for each key class.

    Several messages are copied into one, so that their keys are met at once.
    """
    for transfer in transfers:
        transfer.let_go()
    some = [transfer for transfer in transfers if transfer.round.received is not None]
    if len(some) < 2:
        return some[0].parts() if some else []
    arrived = [transfer.arrived for transfer in some]
    flats = [pair[0] for pair in arrived if pair is not None]
    masks = [pair[1] for pair in arrived if pair is not None and pair[1] is not None]
    batch, d, gathered = some[0].batch, some[0].head_dim, plan.gathered(group)
    flat = join(gathered, flats, batch, d)
    mask = join_masks(gathered, masks, batch) if masks else None
    transfers.clear()
    return unpack(gathered, plan.classes, flat, mask, batch, d)
