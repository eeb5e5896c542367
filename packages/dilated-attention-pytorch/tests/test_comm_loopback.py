"""The simulated transport: copies, poison, order, and a stop where nobody would ever send."""

from __future__ import annotations

import pytest
import torch

from dilated_attention_pytorch import PeerError
from dilated_attention_pytorch.comm import LoopbackWorld, RankTask, record_messages, run_ranks


def test_what_is_sent_is_copied_and_buffers_are_poisoned() -> None:
    world = LoopbackWorld(2)
    sent, buffer = torch.ones(3), torch.zeros(3)
    mask = torch.zeros(2, dtype=torch.uint8)
    waiting = world.communicator(1).exchange("key_value", [], [(0, buffer)])
    assert buffer.isnan().all()
    assert not waiting.ready()
    world.communicator(1).exchange("key_mask", [], [(0, mask)])
    assert (mask == 255).all()
    world.communicator(0).exchange("key_value", [(1, sent)], [])
    sent.zero_()
    assert waiting.ready()
    waiting.wait()
    assert buffer.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("label", "buffer"),
    [
        ("gradient", torch.zeros(3)),
        ("key_value", torch.zeros(4)),
        ("key_value", torch.zeros(3, dtype=torch.float64)),
    ],
    ids=["label", "shape", "dtype"],
)
def test_a_message_of_another_kind_is_refused(label: str, buffer: torch.Tensor) -> None:
    world = LoopbackWorld(2)
    world.communicator(0).exchange("key_value", [(1, torch.ones(3))], [])
    with pytest.raises(PeerError, match="rank 1 expected"):
        world.communicator(1).exchange(label, [], [(0, buffer)]).wait()


def _passes_on(world: LoopbackWorld, rank: int, *, sends: bool = True) -> RankTask[float]:
    """Send a number to the next rank and return the one that came."""
    size, buffer = world.size, torch.zeros(1)
    gone = [((rank + 1) % size, torch.tensor([float(rank)]))] if sends else []
    yield world.communicator(rank).exchange("query", gone, [((rank - 1) % size, buffer)])
    return float(buffer)


def test_ranks_take_turns_and_messages_are_recorded() -> None:
    world = LoopbackWorld(3)
    with record_messages() as outer, record_messages() as messages:
        assert run_ranks([_passes_on(world, rank) for rank in range(3)]) == [2.0, 0.0, 1.0]
    assert outer == messages
    found = [(m.label, m.source, m.target, m.nbytes) for m in messages]
    assert found == [("query", 0, 1, 4), ("query", 1, 2, 4), ("query", 2, 0, 4)]
    with record_messages() as later:
        pass
    assert later == []


def test_waiting_for_nobody_raises_instead_of_hanging() -> None:
    world = LoopbackWorld(3)
    tasks = [_passes_on(world, rank, sends=rank != 1) for rank in range(3)]
    with pytest.raises(PeerError, match=r"ranks \[2\] wait"):
        run_ranks(tasks)
