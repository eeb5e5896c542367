"""The planted faults, each one method of `ChunkedRing` broken.

They are named ``planted_faults:exact.NAME`` and, in bfloat16 alone, ``planted_faults:half.NAME``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from chunked_ring import Array, ChunkedRing, Visit, weighted

from dilated_attention_oracle import Result


class UnmaskedPadKey(ChunkedRing):
    """A short segment is padded with zero keys that the softmax counts."""

    def finish(self, visit: Visit) -> None:
        for i, (w, r) in enumerate(self.inputs.pattern.branches):
            segment, _ = self.segments(i, visit.h)
            mine = segment[visit.queries]
            real = (mine[:, None] == segment).sum(axis=1)
            pads = np.where(mine >= 0, np.maximum(-(-w // r) - real, 0), 0)
            self.merge(visit, np.zeros(visit.out.shape), np.log(pads))


class NormalisedPerChunkAndSummed(ChunkedRing):
    """Chunks are normalised on their own and added up."""

    def merge(self, visit: Visit, out: Array, lse: Array) -> None:
        visit.out = visit.out + out
        visit.lse = np.logaddexp(visit.lse, lse)


class DroppedRescale(ChunkedRing):
    """What was accumulated before is not rescaled when a new chunk arrives."""

    def merge(self, visit: Visit, out: Array, lse: Array) -> None:
        total = np.logaddexp(visit.lse, lse)
        safe = np.where(np.isneginf(total), 0.0, total)
        visit.out = visit.out + weighted(lse - safe, out)
        visit.lse = total


class ResidueOffByOne(ChunkedRing):
    """Every head selects the tokens of the next offset."""

    def offset(self, i: int, h: int) -> int | None:
        found, r = super().offset(i, h), self.inputs.pattern.branches[i][1]
        return None if found is None else (found + 1) % r


class LostLastSegment(ChunkedRing):
    """Only whole segments are computed."""

    def segments(self, i: int, h: int) -> tuple[Array, Array]:
        segment, rank = super().segments(i, h)
        w, n = self.inputs.pattern.branches[i][0], self.inputs.length
        return np.where(segment + w > n, -1, segment), rank


class OwnChunkCountedTwice(ChunkedRing):
    """The ring goes one step too far, back to the rank's own keys."""

    def steps(self) -> int:
        return len(self.shards) + (len(self.shards) > 1)


class StaleReceiveBuffer(ChunkedRing):
    """Backward uses the buffer before the new rows have arrived in it."""

    def received(self, visit: Visit, step: int) -> Array:
        keys = super().received(visit, step)
        before = super().received(visit, max(step - 1, 0))
        return np.resize(before, keys.shape) if len(before) else keys


class LastDropoutSeedReused(ChunkedRing):
    """Backward remembers one dropout state, that of the last step, for all steps."""

    def recall(self, visit: Visit, step: int) -> list[Array]:
        return [
            np.resize(last, factor.shape) if last.size else factor
            for last, factor in zip(visit.factors[-1], visit.factors[step], strict=True)
        ]


class EmptyPartialGivesNaN(ChunkedRing):
    """Merging two empty partials computes exp(-inf - -inf)."""

    def merge(self, visit: Visit, out: Array, lse: Array) -> None:
        total = np.logaddexp(visit.lse, lse)
        visit.out = weighted(visit.lse - total, visit.out) + weighted(lse - total, out)
        visit.lse = total


class LastTokenOfOddLengthDropped(ChunkedRing):
    """The sequence is cut into two equal halves, and the token left over is lost."""

    def segments(self, i: int, h: int) -> tuple[Array, Array]:
        segment, rank = super().segments(i, h)
        even = self.inputs.length // 2 * 2
        return np.where(np.arange(len(segment)) < even, segment, -1), rank


class AllGather(ChunkedRing):
    """Every rank fetches everything and calls it a ring."""

    def rows_received(self, rank: int) -> int:
        rows = self.inputs.length - len(self.shards[rank])
        return int(rows * self.inputs.key.shape[2])


class MaskIgnored(ChunkedRing):
    """A key mask is accepted and has no effect, though it is not listed as supported."""

    supports = ChunkedRing.supports - {"key_mask"}

    def __call__(self, *args: Any, key_mask: Array | None = None, **options: Any) -> Result:
        return super().__call__(*args, **options)


class MaskInverted(ChunkedRing):
    """True is taken to mean: ignore."""

    def __call__(self, *args: Any, key_mask: Array | None = None, **options: Any) -> Result:
        inverted = None if key_mask is None else ~np.asarray(key_mask)
        return super().__call__(*args, key_mask=inverted, **options)


class LseInBaseTwo(ChunkedRing):
    """The logarithm to base 2 is returned."""

    def __call__(self, *args: Any, **options: Any) -> Result:
        result = super().__call__(*args, **options)
        return result._replace(lse=result.lse / np.log(2.0))


class DifferentBitsPerRun(ChunkedRing):
    """`deterministic` is promised, but a counter decides where the ring starts."""

    supports = ChunkedRing.supports | {"deterministic"}
    calls = 0

    def __call__(self, *args: Any, deterministic: bool = False, **options: Any) -> Result:
        self.calls += 1
        return super().__call__(*args, **options)

    def source(self, rank: int, step: int) -> int:
        return super().source(rank, step + self.calls)


FAULTS: dict[str, type[ChunkedRing]] = {
    "unmasked_pad_key": UnmaskedPadKey,
    "partial_normalised_per_chunk": NormalisedPerChunkAndSummed,
    "dropped_rescale": DroppedRescale,
    "residue_off_by_one": ResidueOffByOne,
    "lost_last_segment": LostLastSegment,
    "own_chunk_counted_twice": OwnChunkCountedTwice,
    "stale_receive_buffer": StaleReceiveBuffer,
    "last_dropout_seed_reused": LastDropoutSeedReused,
    "empty_partial_gives_nan": EmptyPartialGivesNaN,
    "last_token_of_odd_length_dropped": LastTokenOfOddLengthDropped,
    "all_gather": AllGather,
    "mask_ignored": MaskIgnored,
    "mask_inverted": MaskInverted,
    "lse_in_base_two": LseInBaseTwo,
    "different_bits_per_run": DifferentBitsPerRun,
}


def in_bfloat16(kind: type[ChunkedRing]) -> ChunkedRing:
    """The same implementation, tested in bfloat16 alone."""
    found = kind()
    found.supports = kind.supports - {"float64", "float32", "float16"}
    return found


exact = SimpleNamespace(unbroken=ChunkedRing(), **{name: kind() for name, kind in FAULTS.items()})
half = SimpleNamespace(
    unbroken=in_bfloat16(ChunkedRing),
    **{name: in_bfloat16(kind) for name, kind in FAULTS.items()},
)
