"""What the demo is told, and what it has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .text import Bytes
from .train import Training, largest_relative_difference

LOSS_LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the command line sets; see `app.demo`."""

    text: bytes
    batches: Bytes
    ranks: int
    seed: int
    memory_length: int
    out: Path

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return len(self.batches)

    @property
    def length(self) -> int:
        """n of a training sequence; a window holds one byte more, the last target."""
        return int(self.batches.shape[-1]) - 1

    @property
    def ring_sizes(self) -> tuple[int, ...]:
        """1, 2, 4, ... and the number of ranks itself."""
        powers = [2**i for i in range(self.ranks.bit_length()) if 2**i < self.ranks]
        return (*powers, self.ranks)


@dataclass(slots=True)
class DemoResults:
    """What the demo has measured: what the ring talked over, and the rest by ring size."""

    backend: str
    training: dict[int, Training] = field(default_factory=dict)
    shares: dict[int, dict[str, float]] = field(default_factory=dict)
    peaks: dict[int, int] = field(default_factory=dict)

    @property
    def loss_difference(self) -> float:
        """The largest relative difference of a step's loss between both trainings."""
        one, ring = (run.losses for _, run in sorted(self.training.items()))
        return largest_relative_difference(ring, one)

    @property
    def failures(self) -> list[str]:
        """One line for each check that did not pass."""
        found = []
        # Written so that NaN fails.
        if not self.loss_difference < LOSS_LIMIT:
            found.append(
                f"losses differ by {self.loss_difference:.1e} relative, limit {LOSS_LIMIT:.0e}"
            )
        found += [
            f"R = {ring_size}: the error of {name} is {share:.2f} of its budget, at most 1"
            for ring_size, shares in self.shares.items()
            for name, share in shares.items()
            if not share <= 1
        ]
        return found
