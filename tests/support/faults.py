"""Faults that people make in ring attention, planted into the package by monkeypatching."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dilated_attention_pytorch.comm.loopback import _LoopbackWork
from dilated_attention_pytorch.functional import call
from dilated_attention_pytorch.functional import ring as ring_function
from dilated_attention_pytorch.functional.call import seed_tensor
from dilated_attention_pytorch.kernels import eager
from dilated_attention_pytorch.kernels.carry import Carry, put, take
from dilated_attention_pytorch.kernels.philox import dropout_factor
from dilated_attention_pytorch.ring import autograd, backward, replicated, shard
from dilated_attention_pytorch.ring.autograd import RingCall
from dilated_attention_pytorch.ring.lanes import backward_terms
from dilated_attention_pytorch.ring.packing import flat_size, pack, unpack
from dilated_attention_pytorch.schedule import RankPlan, Rows, Run, RunList, groups, messages

from . import merge_checks

Patch = pytest.MonkeyPatch


def unmasked_pad_key(patch: Patch) -> None:
    """The kernel never looks at the key mask."""
    original = eager._load
    patch.setattr(
        eager,
        "_load",
        lambda query, part, run, options: original(
            query, replace(part, key_mask=None), run, options
        ),
    )


def normalised_per_chunk_and_summed(patch: Patch) -> None:
    """Each chunk's softmax is finished by itself and the outs are added."""

    def update(
        self: Carry,
        lane: int,
        rows: Rows,
        heads: Rows,
        maximum: Tensor,
        total: Tensor,
        weighted: Tensor,
    ) -> None:
        before = take(self.weighted[lane], rows, heads)
        some = (total > 0)[..., None]
        put(
            self.weighted[lane],
            rows,
            heads,
            before + torch.where(some, weighted / total[..., None], 0.0),
        )
        lse = torch.where(total > 0, maximum + total.log(), -torch.inf)
        merged = torch.logaddexp(take(self.maximum[lane], rows, heads), lse)
        put(self.maximum[lane], rows, heads, merged)
        put(self.total[lane], rows, heads, (merged > -torch.inf).to(total.dtype))

    patch.setattr(Carry, "update", update)


def _update(patch: Patch, rescale: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`Carry.update` with another rescaling of what has been summed so far."""

    def update(
        self: Carry,
        lane: int,
        rows: Rows,
        heads: Rows,
        maximum: Tensor,
        total: Tensor,
        weighted: Tensor,
    ) -> None:
        before = take(self.maximum[lane], rows, heads)
        after = torch.maximum(before, maximum)
        old, new = rescale(before, after), rescale(maximum, after)
        for name, share, factors in (
            ("total", total, (old, new)),
            ("weighted", weighted, (old[..., None], new[..., None])),
        ):
            kept = getattr(self, name)[lane]
            put(kept, rows, heads, take(kept, rows, heads) * factors[0] + share * factors[1])
        put(self.maximum[lane], rows, heads, after)

    patch.setattr(Carry, "update", update)


def dropped_rescale(patch: Patch) -> None:
    """Sums are not rescaled when a later chunk raises the maximum."""
    _update(patch, lambda before, after: torch.ones_like(before))


def empty_partial_of_nan(patch: Patch) -> None:
    """exp(-inf - (-inf)): rows that have met no key become NaN."""
    _update(patch, lambda before, after: torch.exp(before - after))


def _grouping(patch: Patch, wrong: Callable[..., Any]) -> None:
    original = groups.group_by_segment
    patch.setattr(groups, "group_by_segment", functools.partial(wrong, original))


def residue_off_by_one(patch: Patch) -> None:
    """Offset o selects the rows of o + 1."""
    _grouping(
        patch,
        lambda original, segment, place, rate, offset: original(
            segment, place, rate, (offset + 1) % rate
        ),
    )


def lost_last_segment(patch: Patch) -> None:
    """The short segment at the end is left out."""

    def wrong(original: Any, segment: Any, place: Any, rate: int, offset: int) -> Any:
        found = original(segment, place, rate, offset)
        if len(found) > 1:
            del found[max(found)]
        return found

    _grouping(patch, wrong)


def own_chunk_twice(patch: Patch) -> None:
    """A rank's own keys are met at the start and again when the ring has come round."""
    original = RankPlan.local_runs
    patch.setattr(RankPlan, "local_runs", lambda self: RunList([*original(self)] * 2))


def stale_buffer_in_backward(patch: Patch) -> None:
    """From its second round on, backward reads the rows of the round before."""

    last: dict[tuple[int, int], Tensor] = {}

    class Stale(shard.Transfer):
        def parts(self) -> Any:
            if self._flat is not None:
                key = id(self._plan), self._flat.numel()
                fresh = self._flat
                self._flat = last.get(key, fresh)
                last[key] = fresh.clone()
            return super().parts()

    patch.setattr(shard, "Transfer", Stale)


def last_seed_reused(patch: Patch) -> None:
    """The first seed serves every later step."""
    kept: list[Tensor] = []

    def first_seed(seed: Any, like: Tensor) -> Tensor:
        kept.append(seed_tensor(seed, like))
        return kept[0]

    patch.setattr(call, "seed_tensor", first_seed)
    patch.setattr(ring_function, "seed_tensor", first_seed)


def last_token_of_an_odd_length(patch: Patch) -> None:
    """Rows are worked on in pairs and the one left over is dropped."""
    original = Run.tiles

    def tiles(self: Run, block: int) -> Iterator[Run]:
        count = len(self.query) // 2 * 2
        if count:
            even = replace(self, query=self.query.part(0, count))
            yield from original(replace(even, query_x=self.query_x.part(0, count)), block)

    patch.setattr(Run, "tiles", tiles)


def all_gather_as_a_ring(patch: Patch) -> None:
    """Every row goes to every rank."""
    patch.setattr(
        messages,
        "needed",
        lambda problem, key_class, queries, keys: keys.positions >= 0,
    )


def sham_loopback(patch: Patch) -> None:
    """A simulated rank gets a view into the whole sequence."""

    def own(self: RingCall, tensor: Tensor, rank: int, dim: int = 1) -> Tensor:
        start = sum(self.layout.lengths[:rank])
        return tensor.narrow(dim, start, self.layout.lengths[rank])

    patch.setattr(autograd.RingCall, "own", own)


def unread_message(patch: Patch) -> None:
    """The receive buffer is used without waiting for the message."""

    def wait(self: _LoopbackWork) -> None:
        for source, _ in self._receives:
            self._world.mail[(source, self._rank)].popleft()

    patch.setattr(_LoopbackWork, "wait", wait)


def future_leaks(patch: Patch) -> None:
    """Tiles on the diagonal are computed whole."""
    original = Run.tiles

    def tiles(self: Run, block: int) -> Iterator[Run]:
        for tile in original(self, block):
            yield replace(tile, masked=False)

    patch.setattr(Run, "tiles", tiles)


def forgotten_lse_gradient(patch: Patch) -> None:
    """Backward treats lse as a constant."""
    for module in (backward, replicated):
        patch.setattr(
            module,
            "backward_terms",
            lambda dout, dlse, result, options: backward_terms(dout, None, result, options),
        )


def local_dropout_counters(patch: Patch) -> None:
    """Dropout counts a rank's rows from 0 instead of using global positions."""

    def factor(**arguments: Any) -> Tensor:
        positions = arguments["positions"]
        arguments["positions"] = positions - positions.min()
        return dropout_factor(**arguments)

    patch.setattr(eager, "dropout_factor", factor)


def gradients_never_come_home(patch: Patch) -> None:
    """dk and dv of rows that travelled are thrown away."""
    patch.setattr(backward, "add_back", lambda *arguments: None)


def row_sent_twice(patch: Patch) -> None:
    """A row that two branches share travels for each of them."""

    def pack_twice(message: Any, classes: Any, key: Tensor, value: Tensor, into: Tensor) -> Tensor:
        for half in into.chunk(2):
            pack(message, classes, key, value, half)
        return into

    patch.setattr(shard, "pack", pack_twice)
    patch.setattr(shard, "flat_size", lambda shapes: 2 * flat_size(shapes))

    def unpack_first(message: Any, classes: Any, flat: Tensor, *others: Any) -> Any:
        return unpack(message, classes, flat[: flat.numel() // 2], *others)

    patch.setattr(shard, "unpack", unpack_first)


def zero_times_nan(patch: Patch) -> None:
    """Weights of 0 multiply whatever a hidden row holds."""
    patch.setattr(eager, "_weighted", lambda weights, values, visible: weights @ values)


def unbounded_pieces(patch: Patch) -> None:
    """A message is never cut, so receive buffers hold what they must not."""
    patch.setattr(messages, "piece_capacity", lambda *arguments: 1 << 30)


def merge_without_guard(patch: Patch) -> None:
    """Merging subtracts the largest lse though it is -inf."""

    def merge(outs: Any, lses: Any) -> tuple[Tensor, Tensor]:
        out, lse = torch.stack(list(outs)), torch.stack(list(lses))
        largest = lse.amax(0)
        weights = torch.exp(lse - largest)
        total = weights.sum(0)
        merged = (weights[..., None] * out).sum(0) / total[..., None]
        return merged.to(out.dtype), largest + total.log()

    patch.setattr(merge_checks, "merge_partials", merge)
