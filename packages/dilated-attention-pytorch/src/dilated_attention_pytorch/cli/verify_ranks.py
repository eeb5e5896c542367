"""The order of the checks of `dilated-attention verify`, and what happens where a rank fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch.distributed as dist

from . import verify_checks as checks
from .rank import Rank
from .verify_checks import Row

_BANDWIDTH = {"cpu": 16 * checks.MEBIBYTE, "cuda": 256 * checks.MEBIBYTE}


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """What the command line sets.

    Args:
        length: Global sequence length of the checks of numbers.
        memory_length: That of the check of memory.
        timeout: Seconds after which a rank that does not answer has failed.
    """

    length: int
    memory_length: int
    timeout: float


class StoppedError(Exception):
    """A check could not be finished on some rank; holds the rows that say so."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__("a check could not be finished")
        self.rows = rows


def ring_sizes(size: int) -> list[int]:
    """1, 2, 4, ... and the size itself."""
    return [1 << i for i in range(size.bit_length()) if 1 << i < size] + [size]


def check_rank(rank: Rank, settings: VerifySettings) -> list[Row]:
    """All checks, on every rank of `rank.group` at once; every rank gets all rows.

    A rank that raises in a check, and those that then wait for it in vain, say so over a group of
    their own, and no further check is made.
    """
    return _Session(rank, settings).run()


class _Session:
    def __init__(self, rank: Rank, settings: VerifySettings) -> None:
        self._rank, self._settings = rank, settings
        everybody = dist.get_process_group_ranks(rank.group)
        limit = timedelta(seconds=settings.timeout)
        self._rings = {
            size: dist.new_group(everybody[:size], timeout=limit)
            for size in ring_sizes(rank.ring_size)
        }
        # Waits for ranks that themselves wait until their timeout, in forward and in backward.
        self._side = dist.new_group(everybody, backend="gloo", timeout=3 * limit)

    def run(self) -> list[Row]:
        rows: list[Row] = []
        try:
            for found in self._checks():
                rows += found
        except StoppedError as stop:
            rows += stop.rows
        return rows

    def _checks(self) -> Iterator[list[Row]]:
        yield self._software()
        if self._rank.ring_size > 1:
            yield self._transport()
        yield from self._numbers()
        yield self._bits()
        if self._rank.ring_size > 1:
            yield self._memory()

    def _on(self, size: int) -> Rank:
        return Rank(self._rings[size], self._rank.device, self._rank.report)

    def _everywhere(self, name: str, size: int, action: Callable[[Rank], Any]) -> list[Any]:
        """What the action returned on each rank of a ring.

        Raises:
            StoppedError: it raised on some rank.
        """
        result, failure = None, None
        if self._rank.index < size:
            try:
                result = action(self._on(size))
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
        told = checks.gather(self._side, (failure, result))
        failures = [(rank, text) for rank, (text, _) in enumerate(told) if text is not None]
        if failures:
            raise StoppedError(
                [
                    Row(name, str(size), f"rank {rank} raised {text}", "no error", False)
                    for rank, text in failures
                ]
            )
        return [value for _, value in told[:size]]

    def _software(self) -> list[Row]:
        size = self._rank.ring_size
        found = self._everywhere("software", size, checks.software)
        kinds = sorted(set(found))
        text = "; ".join(f"{found.count(kind)} x {kind}" for kind in kinds)
        return [Row("software", str(size), text, "one kind", len(kinds) == 1)]

    def _transport(self) -> list[Row]:
        size = self._rank.ring_size
        name = "messages"
        wrong = self._everywhere(name, size, checks.strangers)
        pairs = [f"{source} to {rank}" for rank, heard in enumerate(wrong) for source in heard]
        text = f"wrong: {', '.join(pairs)}" if pairs else f"{size * (size - 1)} pairs of ranks"
        intact = Row(name, str(size), text, "all unchanged", not pairs)
        nbytes = _BANDWIDTH[self._rank.device.type]
        name = "bandwidth"
        speeds = self._everywhere(name, size, partial(checks.bandwidth, nbytes=nbytes))
        text = f"{min(speeds) / 1e9:.2f} to {max(speeds) / 1e9:.2f} GB/s to the next rank"
        rows = [intact, Row(name, str(size), text)]
        measured = self._everywhere("transports", size, checks.transports_of)[0]
        return rows if measured is None else [*rows, Row("transports", str(size), measured)]

    def _numbers(self) -> Iterator[list[Row]]:
        case = checks.case_of(self._settings.length, self._rank.device)
        expected = checks.expect(case) if self._rank.index == 0 else None
        for size in self._rings:
            judge = partial(checks.correctness, case=case, expected=expected)
            yield self._everywhere("rows", size, judge)[0]

    def _bits(self) -> list[Row]:
        name = "bits of out and lse"
        case = checks.case_of(self._settings.length, self._rank.device)
        digests = {
            size: self._everywhere(name, size, partial(checks.bits, case=case))
            for size in self._rings
        }
        kinds = {digest for found in digests.values() for digest in found}
        sizes = ", ".join(str(size) for size in self._rings)
        text = "equal bits" if len(kinds) == 1 else f"{len(kinds)} different results"
        return [Row(name, sizes, text, "equal bits", len(kinds) == 1)]

    def _memory(self) -> list[Row]:
        size = self._rank.ring_size
        length = self._settings.memory_length
        measure = partial(checks.peak_memory, length=length)
        found = self._everywhere("memory", size, measure)
        peak, limit = max(found, key=lambda pair: pair[0] - pair[1])
        allowed = f"below {limit / checks.MEBIBYTE:.1f}, that with all keys"
        text = f"{peak / checks.MEBIBYTE:.1f} MiB a rank, n = {length:,}"
        return [Row("memory", str(size), text, allowed, peak < limit)]
