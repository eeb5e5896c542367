"""Slots of symmetric memory: whatever the devices do first, the right bytes arrive."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dilated_attention_pytorch.comm.slots import CHANNELS, Slots, Step

Change = Callable[[Step], Step]
# An exchange: bytes of the messages of each pair (sender, receiver), in order.
Exchange = dict[tuple[int, int], list[int]]


class HangError(Exception):
    """No stream can go on."""


@dataclass
class _World:
    """Memory and signals of all ranks, as the devices see them."""

    size: int
    total: int

    def __post_init__(self) -> None:
        self.memory = [bytearray(self.total) for _ in range(self.size)]
        self.signals: set[tuple[int, int, int]] = set()
        self.arrived: dict[tuple[int, int, int], bytearray] = {}

    def put(self, source: int, target: int, channel: int) -> bool:
        """Set a signal; it has to wait while the one before it was not seen."""
        if (source, target, channel) in self.signals:
            return False
        self.signals.add((source, target, channel))
        return True

    def wait(self, source: int, target: int, channel: int) -> bool:
        if (source, target, channel) not in self.signals:
            return False
        self.signals.remove((source, target, channel))
        return True


def content(exchange: int, pair: tuple[int, int], number: int, nbytes: int) -> bytes:
    return random.Random(f"{exchange} {pair} {number}").randbytes(nbytes)


def _actions(
    world: _World, rank: int, exchanges: list[Exchange], change: Change
) -> tuple[deque[Callable[[], bool]], deque[Callable[[], bool]]]:
    """What a rank puts on its two streams; an action says whether it could be done."""
    streams: tuple[deque[Callable[[], bool]], ...] = (deque(), deque())
    slots = Slots(rank, world.size, world.total)
    for number, exchange in enumerate(exchanges):
        batch: list[tuple[int, int, bool]] = []
        names: list[tuple[tuple[int, int], int]] = []
        for pair, sizes in exchange.items():
            if rank in pair:
                for i, nbytes in enumerate(sizes):
                    batch.append((pair[1] if pair[0] == rank else pair[0], nbytes, pair[0] == rank))
                    names.append((pair, i))
        for step in slots.steps(batch):
            step = change(step)
            pair, i = names[step.parcel]
            data = content(number, pair, i, exchange[pair][i])
            key = (number, pair[0] * world.size + pair[1], i)
            _add(world, rank, step, data, key, streams[0 if step.leaves else 1])
    return streams[0], streams[1]


def _add(
    world: _World,
    rank: int,
    step: Step,
    data: bytes,
    key: tuple[int, int, int],
    stream: deque[Callable[[], bool]],
) -> None:
    peer, span = step.peer, slice(step.at, step.at + step.end - step.begin)

    def copy_in() -> bool:
        world.memory[rank][span] = data[step.begin : step.end]
        return True

    def copy_out() -> bool:
        into = world.arrived.setdefault(key, bytearray(len(data)))
        into[step.begin : step.end] = world.memory[peer][span]
        return True

    if step.leaves:
        if step.reused:
            stream.append(lambda: world.wait(peer, rank, step.taken))
        stream.append(copy_in)
        stream.append(lambda: world.put(rank, peer, step.full))
    else:
        stream.append(lambda: world.wait(peer, rank, step.full))
        stream.append(copy_out)
        stream.append(lambda: world.put(rank, peer, step.taken))


def run(
    size: int, total: int, exchanges: list[Exchange], order: random.Random, change: Change
) -> None:
    """Let all streams go on in some order; AssertionError where other bytes arrive than were sent.

    Raises:
        HangError: no stream can go on.
    """
    world = _World(size, total)
    streams = [x for rank in range(size) for x in _actions(world, rank, exchanges, change)]
    while any(streams):
        order.shuffle(streams)
        # Some stream may race ahead of all others.
        moved = False
        for stream in streams:
            for _ in range(order.choice([1, 3, 20])):
                if not (stream and stream[0]()):
                    break
                stream.popleft()
                moved = True
        if not moved:
            raise HangError
    for number, exchange in enumerate(exchanges):
        for pair, sizes in exchange.items():
            for i, nbytes in enumerate(sizes):
                found = world.arrived[number, pair[0] * size + pair[1], i]
                assert found == content(number, pair, i, nbytes)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[Exchange]]:
    """Rings of up to four ranks; messages of any length, masks beside them."""
    size = draw(st.integers(2, 4))
    total = draw(st.sampled_from([512 * 2 * (size - 1), 512 * 4 * (size - 1)]))
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    message = st.lists(st.integers(0, 3000), min_size=1, max_size=2)
    exchange = st.dictionaries(st.sampled_from(pairs), message)
    return size, total, draw(st.lists(exchange, max_size=5))


def unchanged(step: Step) -> Step:
    return step


@given(histories(), st.integers(0, 2**32))
def test_all_bytes_arrive_whoever_is_first(
    history: tuple[int, int, list[Exchange]], seed: int
) -> None:
    run(*history, random.Random(seed), unchanged)


# Long messages both ways between all three ranks, and a small one beside each.
BUSY = (3, 512 * 4, [{(a, b): [5000, 100] for a in range(3) for b in range(3) if a != b}] * 3)


def _one_slot(step: Step) -> Step:
    return replace(step, at=step.at // 1024 * 1024)


def _every_pair_the_same(step: Step) -> Step:
    return replace(step, at=step.at % 1024)


def _receiver_counts_from_one(step: Step) -> Step:
    return step if step.leaves else replace(step, full=1 - step.full, taken=5 - step.taken)


FAULTS: dict[str, Change] = {
    "slots are not waited for": lambda step: replace(step, reused=False),
    "one slot for two pieces": _one_slot,
    "one slot for all receivers": _every_pair_the_same,
    "ends count unlike": _receiver_counts_from_one,
}


def _in_many_orders(change: Change) -> None:
    for seed in range(20):
        run(*BUSY, random.Random(seed), change)


def test_a_busy_ring_is_served_in_every_order() -> None:
    _in_many_orders(unchanged)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault: str) -> None:
    """Planted, in some of twenty orders: other bytes, or nobody goes on."""
    with pytest.raises((AssertionError, HangError)):
        _in_many_orders(FAULTS[fault])


def test_memory_does_not_grow_with_the_ring_or_the_messages() -> None:
    total = 64 << 20
    for size in (2, 3, 8, 72):
        slots = Slots(0, size, total)
        assert total * 0.99 < slots.nbytes <= total
        steps = list(slots.steps([(1, 10 * total, True)]))
        assert {step.full for step in steps} | {step.taken for step in steps} == set(
            range(CHANNELS)
        )
        assert all(0 <= step.at <= total - slots.slot_bytes for step in steps)
        assert steps[-1].end == 10 * total
