"""One rank's tensors, and the exchange of the key/value rows of one round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..comm import Communicator, RankTask, Work
from ..kernels.options import KeyPart
from ..schedule import Message, RankPlan, Round
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
    """The key/value exchange of one round, posted on construction; by `depart` with its group.

    Args:
        plan: of the rank.
        planned: the round.
        shard: the rank's rows.
        comm: this rank's end of the ring.
        room: buffers for what is sent and what is received, of an exchange that `depart` posts.
    """

    def __init__(
        self,
        plan: RankPlan,
        planned: Round,
        shard: Shard,
        comm: Communicator,
        room: tuple[Tensor | None, Tensor | None] | None = None,
    ) -> None:
        self._plan, self.round, self.workspace = plan, planned, comm.workspace
        self.batch, self.head_dim = shard.key.shape[0], shard.key.shape[3]
        self._mask: Tensor | None = None
        sent, self._flat = _room(plan, [planned], shard, comm)[0] if room is None else room
        sends: list[tuple[int, Tensor]] = []
        receives: list[tuple[int, Tensor]] = []
        mask_sends: list[tuple[int, Tensor]] = []
        mask_receives: list[tuple[int, Tensor]] = []
        mask, out, into = shard.key_mask, planned.sent, planned.received
        if out is not None and sent is not None:
            packed = pack(out, plan.classes, shard.key, shard.value, sent)
            sends.append((planned.target, packed))
            if mask is not None:
                mask_sends.append((planned.target, pack_mask(out, mask, comm.workspace)))
        if into is not None and self._flat is not None:
            receives.append((planned.source, self._flat))
            if mask is not None:
                size = mask_size(into, self.batch)
                self._mask = comm.workspace.empty(size, torch.uint8, mask.device)
                mask_receives.append((planned.source, self._mask))
        # The buffers that leave are held here until the exchange is over.
        self.parcels = {"key_value": (sends, receives), "key_mask": (mask_sends, mask_receives)}
        self.works: list[Work] = []
        if room is None:
            _post([self], comm)

    def let_go(self) -> None:
        """Forget what was sent; the exchange is over."""
        self.parcels.clear()
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


def _room(
    plan: RankPlan, rounds: Sequence[Round], shard: Shard, comm: Communicator
) -> list[tuple[Tensor | None, Tensor | None]]:
    """Flat buffers for what is sent and what is received in each round.

    Those of one kind lie in one buffer, which serves another group, or its gradients, as a whole.
    """
    key = shard.key
    b, _, _, d = key.shape

    def cut(messages: Sequence[Message | None]) -> list[Tensor | None]:
        sizes = [
            0 if one is None else flat_size(block_shapes(one, plan.classes, b, d))
            for one in messages
        ]
        whole = comm.workspace.empty(sum(sizes), key.dtype, key.device)
        parts = zip(messages, whole.split(sizes), strict=True)
        return [None if one is None else part for one, part in parts]

    sent, received = cut([x.sent for x in rounds]), cut([x.received for x in rounds])
    return list(zip(sent, received, strict=True))


def _post(transfers: Sequence[Transfer], comm: Communicator) -> None:
    """Post all as one exchange, and one of masks where there are some."""
    works: list[Work] = []
    for label in ("key_value", "key_mask"):
        sends = [one for transfer in transfers for one in transfer.parcels[label][0]]
        receives = [one for transfer in transfers for one in transfer.parcels[label][1]]
        if sends or receives:
            works.append(comm.exchange(label, sends, receives))
    for transfer in transfers:
        transfer.works = list(works)


def depart(plan: RankPlan, group: int, shard: Shard, comm: Communicator) -> list[Transfer]:
    """Post a group of rounds, whose messages travel at the same time; none after the last group."""
    rounds = plan.groups[group] if group < len(plan.groups) else ()
    rooms = _room(plan, rounds, shard, comm)
    transfers = [
        Transfer(plan, planned, shard, comm, room)
        for planned, room in zip(rounds, rooms, strict=True)
    ]
    _post(transfers, comm)
    return transfers


def arrive(transfers: Sequence[Transfer]) -> RankTask[None]:
    """Wait for all; those of a group share their works."""
    yield from dict.fromkeys(work for transfer in transfers for work in transfer.works)


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
    flat = join(gathered, flats, batch, d, some[0].workspace)
    mask = join_masks(gathered, masks, batch, some[0].workspace) if masks else None
    transfers.clear()
    return unpack(gathered, plan.classes, flat, mask, batch, d)
